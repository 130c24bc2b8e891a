"""`offhook doctor --bundle`: an archive for a bug report, without a secret or phone number."""

import gzip
import json
import stat
import sys
import tarfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from offhook.callback_url import callback_url
from offhook.inbox import keys
from offhook.settings import load_settings
from offhook_cli.redaction import Redactor, redacted, secrets_in
from tests.conftest import SECRET, Configure
from tests.healthy import Scene, healthy
from tests.offhook_cli.conftest import Offhook

# A value for each kind of field; none may be in a bundle.
PLANTED = {
    "secret": SECRET,
    "previous_secret": "the secret before, forty characters long",
    "public_url_account": "url-account:url-pass",
    "public_url_path": "hidden-path-4711",
    "redis_user": "redis-user",
    "redis_password": "redis%40pass",
    "rq_password": "rq-passw0rd",
    "client_id": "id-of-the-app",
    "client_secret": "app-s3cret",
    "token": "pbx-t0ken-in-a-file",
    "user": "8675309",
    "extension": "0003*2101",
    "typed_secret": "webho0k-secret-of-24-chars-or-more",
    "secret_file": "another-secret-in-a-file",
    "url": "https://target.example.com/hook/a1b2c3?key=d4e5f6",
    "url_account": "basic-user:basic-passw0rd",
    "header": "Bearer h3ader-t0ken",
    "unknown_text": "quite harmless or not",
    "in_a_list": "mailto://li5t:passw0rd@example.com",
    "in_a_table": "t4ble-value",
    "table_key": "Bob's numb3r",
    "option_file": "an-apikey-in-a-file",
    "json_in_environment": "server=db;pwd=env-passw0rd",
    "decoded_password": "redis@pass",
    "number": "+40 21 123 4567",
    "plain_number": "442079460100",
    "whole_number": "442079460102",
    "lookup_option": "postgresql://looker:l00kup@db/crm",
    "environment": "environm3nt-token",
    "local_number": "0211234567",
}
# These may not be on the screen either.
SECRETS = {
    *("secret", "previous_secret", "public_url_account", "redis_user", "redis_password"),
    *("rq_password", "client_secret", "token", "typed_secret", "secret_file", "url"),
    *("url_account", "header", "in_a_list", "lookup_option", "environment"),
    *("option_file", "json_in_environment", "decoded_password"),
}
CONFIG = """
secret = "{secret}"
previous_secret = "{previous_secret}"
public_url = "http://{public_url_account}@127.0.0.1:1/{public_url_path}"
redis_url = "redis://{redis_user}:{redis_password}@127.0.0.1:1/0"
rq_url = "redis://:{rq_password}@127.0.0.1:1/1"
[pbx.main]
host = "https://pbx.example.com"
client_id = "{client_id}"
client_secret = "{client_secret}"
user = "{user}"
[pbx.other]
host = "https://other.example.com"
token_file = "pbx-token"
[pbx.third]
host = "https://third.example.com"
[handlers.crm]
use = "webhook"
extensions = ["{extension}"]
[handlers.crm.options]
url = "https://{url_account}@target.example.com/"
secret = "{typed_secret}"
headers = {{ X-Auth = "{header}" }}
[handlers.chat]
use = "notify"
[handlers.chat.options]
urls_file = "hook-secret"
[handlers.own]
use = "doctors_handler:Own"
[handlers.own.options]
text = "{unknown_text}"
url = "{url}"
many = ["{in_a_list}"]
api_key_file = "api-key"
table = {{ a = "{in_a_table}", "{table_key}" = "Jane", c = {plain_number} }}
number = "{number}"
whole = {whole_number}
few = 3
flag = true
[lookups.staff]
use = "doctors_handler:Staff"
options.dsn = "{lookup_option}"
"""
# It quotes its options in what it raises, and phone numbers.
PLUGIN = """
import os
from dataclasses import dataclass, field
from offhook import Handler, Lookup

@dataclass(frozen=True)
class Own(Handler):
    text: str
    url: str
    many: list[str]
    api_key: str
    table: dict[str, object]
    number: str
    whole: int
    few: int
    flag: bool
    def __post_init__(self):
        more = (LOCAL, os.environ["OFFHOOK_PBX__THIRD__TOKEN"], "redis@pass")
        raise RuntimeError(f"cannot use {self} for +44 20 7946 0103 or {more}")
    async def handle(self, event, context): ...

@dataclass(frozen=True)
class Staff(Lookup):
    dsn: str
    def name_of(self, number, context): ...
    def problem(self):
        return f"no connection to {self.dsn}"
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write a configuration with all that is planted, and return its folder."""
    (tmp_path / "offhook.toml").write_text(CONFIG.format(**PLANTED))
    (tmp_path / "pbx-token").write_text(PLANTED["token"])
    (tmp_path / "hook-secret").write_text(PLANTED["secret_file"])
    (tmp_path / "api-key").write_text(PLANTED["option_file"])
    local = f"\nLOCAL = {PLANTED['local_number']!r}\n"
    (tmp_path / "doctors_handler.py").write_text(PLUGIN + local)
    monkeypatch.setenv("OFFHOOK_CONFIG", str(tmp_path / "offhook.toml"))
    monkeypatch.setenv("OFFHOOK_PBX__THIRD__TOKEN", PLANTED["environment"])
    dsn = PLANTED["json_in_environment"]
    more = {"env": {"use": "doctors_handler:Staff", "options": {"dsn": dsn}}}
    monkeypatch.setenv("OFFHOOK_LOOKUPS", json.dumps(more))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("doctors_handler", None)


def documents(bundle: Path) -> dict[str, Any]:
    with tarfile.open(bundle) as archive:
        return {
            member.name: json.loads(archive.extractfile(member).read())  # type: ignore[union-attr]
            for member in archive
        }


def leaks(content: str) -> set[str]:
    """Return the names of what is planted and occurs in a text, also as a URL has it."""
    return {
        name
        for name, value in PLANTED.items()
        for part in {value, value.split(":")[-1]}
        if part in content or quote(part, safe="") in content
    }


@pytest.mark.parametrize("loads", [True, False])
def test_a_bundle_has_nothing_that_is_planted(loads: bool, planted: Path, offhook: Offhook) -> None:
    if not loads:
        with (planted / "offhook.toml").open("a") as file:
            file.write("[handlers.more]\ntimeout = 'x'\n")
    bundle = planted / "report.tar.gz"
    result = offhook("doctor", "--bundle", str(bundle))
    assert result.exit_code == 1
    assert result.stderr == f"Wrote {bundle}. Look through it before you send it.\n"
    content = gzip.decompress(bundle.read_bytes()).decode("latin-1")
    assert leaks(content) == set()
    assert "7946 0103" not in content
    assert not leaks(result.output) & SECRETS
    configuration = documents(bundle)["offhook-doctor/configuration.json"]
    assert configuration["secret"] == "***"
    assert configuration["pbx"]["main"]["host"] == "https://pbx.example.com"
    assert configuration["handlers"]["own"]["use"] == "doctors_handler:Own"
    options = configuration["handlers"]["own"]["options"]
    assert options == dict.fromkeys(options, "***") | {"few": 3, "flag": True}
    assert len(options) == 9


@pytest.fixture
def scene(tmp_path: Path, redis_url: str, configure: Configure) -> Iterator[Scene]:
    with healthy(tmp_path, redis_url, configure) as made:
        yield made


def test_a_bundle_says_what_runs(scene: Scene, offhook: Offhook) -> None:
    scene.append(2)
    scene.redis.xadd(keys.quarantine(), {"code": "missing_call_id"})
    bundle = scene.folder / "report.tar.gz"
    assert offhook("doctor", "--bundle", str(bundle)).exit_code == 0
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    found = documents(bundle)
    assert sorted(found) == [
        f"offhook-doctor/{name}.json" for name in ("configuration", "doctor", "status", "versions")
    ]
    counts = found["offhook-doctor/status.json"]
    assert counts["workers"] == {"offhook.serve": 1, "offhook.scheduled": 1}
    assert (counts["partitions"], counts["refused"]) == ([2], 1)
    assert (counts["handlers"][0]["name"], counts["handlers"][0]["lag"]) == ("crm", 2)
    versions = found["offhook-doctor/versions.json"]
    assert versions["packages"]["offhook"] == version("offhook")
    assert versions["python"] == sys.version
    assert versions["servers"]["redis_url"]["maxmemory_policy"] == "noeviction"
    configuration = found["offhook-doctor/configuration.json"]
    assert (configuration["partitions"], configuration["url_rate"]) == (1, 100.0)
    assert found["offhook-doctor/doctor.json"]["counts"]["warn"] == 2


def test_an_existing_file_is_not_overwritten(scene: Scene, offhook: Offhook) -> None:
    there = scene.folder / "offhook.toml"
    before = there.read_text()
    result = offhook("doctor", "--bundle", str(there))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"{there} already exists; nothing was written.\n"
    assert there.read_text() == before
    result = offhook("doctor", "--bundle", str(scene.folder / "no" / "report.tar.gz"))
    assert result.exit_code == 1
    assert result.stderr.startswith("cannot write ")


def test_a_callback_url_is_removed() -> None:
    url = callback_url("https://offhook.example.com", SECRET, "main", "0003*210", "hangup")
    assert Redactor([]).text(f"see {url} there") == (
        "see https://offhook.example.com/callback/*** there"
    )


def test_urls_of_sentinels_keep_their_hosts(configure: Configure) -> None:
    url = "sentinel://10.0.0.1:26379,10.0.0.2/inbox/0?password=pa55word&sentinel_password=5entinel"
    configure(redis_url=url)
    settings = load_settings()
    shown = redacted(settings.model_dump(), checked=True)
    assert shown["redis_url"] == "sentinel://10.0.0.1:26379,10.0.0.2/inbox/0"
    assert {"pa55word", "5entinel"} <= secrets_in([settings.model_dump()])
    assert redacted({"redis_url": url}, checked=False) == {"redis_url": "***"}


def test_only_what_is_known_to_be_harmless_is_shown() -> None:
    """A setting that is added later is hidden until someone decides that it may be shown."""
    later = {"a_new_setting": "text", "list": ["text"], "number": 7, "table": {"x": "text"}}
    assert redacted(later, checked=True) == {
        "a_new_setting": "***",
        "list": ["***"],
        "number": 7,
        "table": {"x": "***"},
    }


def test_a_short_text_is_no_secret() -> None:
    """Else the `at` of some option would be missing in every sentence."""
    assert Redactor(["at", "", "long enough"]).text("at last, long enough") == "at last, ***"


@pytest.mark.parametrize(
    "number",
    ["+442079460100", "+44 20 7946 0100", "+44 (0)20 7946-0100", "02079460100", "0003*210"],
)
def test_phone_numbers_are_removed_from_bundles(number: str) -> None:
    assert Redactor([], numbers=True).text(f"for {number}, twice") == "for ***, twice"
    assert Redactor([]).text(number) == number


@pytest.mark.parametrize(
    "text", ["2026-11-28 14:30:00", "Valkey 9.1.2", "127.0.0.1:6379", "1 of 16", "12.5 GB"]
)
def test_other_numbers_stay(text: str) -> None:
    assert Redactor([], numbers=True).text(text) == text


def test_the_server_user_of_the_deploy_files_is_no_secret() -> None:
    found = secrets_in([{"redis_url": "redis://offhook:the-password@10.0.0.5:6379/0"}])
    assert found == {"offhook:the-password", "the-password"}
