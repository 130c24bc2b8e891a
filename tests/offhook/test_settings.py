"""The configuration: file and environment, and error messages without secrets."""

import os
from collections.abc import Callable
from pathlib import Path
from traceback import format_exception

import pytest

from offhook.errors import ConfigError
from offhook.settings import (
    ConsoleSettings,
    ConsoleToken,
    ConsoleUser,
    HandlerSettings,
    PbxSettings,
    Settings,
    load_settings,
)
from tests.conftest import SECRET


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write the configuration file, without any other configuration."""
    for name in os.environ:
        if name.startswith("OFFHOOK_"):
            monkeypatch.delenv(name)
    path = tmp_path / "offhook.toml"
    monkeypatch.setenv("OFFHOOK_CONFIG", str(path))

    def write(text: str) -> Path:
        path.write_text(text)
        return path

    return write


PREVIOUS = "the previous secret, which is forty letters long"

Write = Callable[[str], Path]


def problems() -> list[str]:
    with pytest.raises(ConfigError) as wrong:
        load_settings()
    return wrong.value.problems


def test_only_a_secret_is_required(write: Write) -> None:
    write(f"secret = {SECRET!r}")
    settings = load_settings()
    assert settings.secret.get_secret_value() == SECRET
    assert settings.duplicate_window == 5
    assert settings.handlers == {}


def test_a_missing_secret_is_explained(write: Write) -> None:
    write("")
    [problem] = problems()
    assert problem.startswith("secret: is not set")
    assert "offhook init" in problem


def test_a_missing_configuration_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("OFFHOOK_CONFIG", "OFFHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    [problem] = problems()
    assert f"no offhook.toml in {tmp_path}" in problem
    assert "OFFHOOK_CONFIG" in problem


def test_a_missing_file_that_was_named_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OFFHOOK_SECRET", SECRET)
    [problem] = problems()
    assert problem.startswith(f"OFFHOOK_CONFIG: there is no file {tmp_path}/offhook.toml; ")
    (tmp_path / "offhook.toml").mkdir()  # as Docker creates a missing mount
    [problem] = problems()
    assert problem == f"{tmp_path}/offhook.toml: cannot be read: Is a directory"
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("OFFHOOK_CONFIG", "")
    assert load_settings().handlers == {}


def test_a_short_secret_is_refused(write: Write) -> None:
    write("secret = 'too short'")
    [problem] = problems()
    assert problem.startswith("secret: is shorter than 32 characters")


@pytest.mark.parametrize("secret", ["x" * 32, "ab" * 20, "a1!" * 16, "correct horse " * 4])
def test_a_secret_that_repeats_a_few_characters_is_refused(write: Write, secret: str) -> None:
    write(f"secret = {secret!r}")
    [problem] = problems()
    assert problem.startswith("secret: is a repetition of a few characters")
    assert secret[:8] not in problem


def test_all_faults_are_reported_with_their_names(write: Write) -> None:
    write(
        f"secret = {SECRET!r}\npartitions = 0\nduplicate_window = -1\nnonsense = 1\n"
        "redis_url = 'http://x'\n[handlers.crm]\nconcurrency = 0\n"
    )
    named = {problem.partition(":")[0] for problem in problems()}
    assert named == {
        "partitions",
        "duplicate_window",
        "nonsense",
        "redis_url",
        "handlers.crm.use",
        "handlers.crm.concurrency",
    }


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ("public_url = 'offhook.example.com'", "must be a URL such as https://offhook.example.com"),
        ("redis_url = 'localhost:6379'", "must begin with redis://"),
        ("durability = 'safe'", "must be 'server', 'disk' or 'replica'"),
        ("durability = 'replica'", 'durability "replica" needs it; set it to the number of'),
        ("partitions = 'two'", "must be a whole number"),
        ("partitions = 0", "must be 1 or more"),
        ("read_timeout = 4000", "must be 3600 or less"),
        ("keep_days = 0", "must be more than 0"),
        ("region = 'Germany'", "'Germany' is not the code of a country: write its two letters"),
        ("daily_summary = '6pm'", "must be a time of day, such as 18:00"),
        ("handlers.crm = 'webhook'", "must be a table"),
        ("handlers.crm.concurrency = 1", "is not set, and must be"),
        ("handlers.crm = {use = 'x', events = ['hangups']}", "there is no event type 'hangups'"),
        ("handlers.crm = {use = 'x', extensions = '0003*210'}", "must be a list, in [ and ]"),
        ("pbx.main = {token = 'x', host = 'pbx.example.com'}", "must be an address alone"),
        ("pbx.main = {token = 'x', host = 'https://x', user = 'me'}", "must be @me, @owner"),
    ],
)
def test_a_fault_is_explained_to_the_operator(write: Write, wrong: str, problem: str) -> None:
    write(f"secret = {SECRET!r}\n{wrong}")
    [told] = problems()
    assert told.partition(": ")[2].startswith(problem)


def test_times_too_long_for_a_date_are_refused(write: Write) -> None:
    write(
        f"secret = {SECRET!r}\nkeep_days = 999999\ncall_timeout = 1e11\n"
        "[handlers.crm]\nuse = 'console'\nretry = [10, 1e11]\n"
    )
    named = {problem.partition(":")[0] for problem in problems()}
    assert named == {"keep_days", "call_timeout", "handlers.crm.retry.1"}


def test_the_environment_takes_precedence_over_the_file(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(f"secret = {SECRET!r}\npartitions = 2\nmax_body = 2000")
    monkeypatch.setenv("OFFHOOK_PARTITIONS", "3")
    settings = load_settings()
    assert (settings.partitions, settings.max_body) == (3, 2000)


def test_a_secret_may_be_in_a_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("secret_file = 'the-secret'")
    (path.parent / "the-secret").write_text(SECRET + "\n")
    assert load_settings().secret.get_secret_value() == SECRET
    write("")
    monkeypatch.setenv("OFFHOOK_SECRET_FILE", "the-secret")
    assert load_settings().secret.get_secret_value() == SECRET
    monkeypatch.setenv("OFFHOOK_SECRET_FILE", "missing")
    [problem] = problems()
    assert "secret_file: cannot read" in problem


def test_a_file_that_the_environment_names_takes_precedence_over_the_configuration(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(f"secret = {SECRET!r}\nredis_url = 'redis://one:1/0'")
    (path.parent / "url").write_text("redis://two:2/0\n")
    monkeypatch.setenv("OFFHOOK_REDIS_URL_FILE", "url")
    assert load_settings().redis_url == "redis://two:2/0"
    monkeypatch.setenv("OFFHOOK_REDIS_URL", "redis://three:3/0")
    assert load_settings().redis_url == "redis://three:3/0"


def test_a_file_that_is_not_toml_is_refused(write: Write) -> None:
    path = write("secret = ")
    [problem] = problems()
    assert problem.startswith(f"{path}, at its end: is not TOML: ")


def test_a_handlers_name_can_be_part_of_a_queues_name(write: Write) -> None:
    for name in ("CRM", "1a", "a b", "x" * 41, "a.b"):
        write(f"secret = {SECRET!r}\n[handlers.{name!r}]\nuse = 'console'\n")
        [problem] = problems()
        assert problem.startswith(f"handlers.{name}: ")


def test_the_settings_repr_contains_no_secret(write: Write) -> None:
    write(
        f"secret = {SECRET!r}\nprevious_secret = {PREVIOUS!r}\n"
        "redis_url = 'redis://:hunter2@localhost/0'\n"
        "[handlers.crm]\nuse = 'webhook'\n[handlers.crm.options]\ntoken = 'hunter3'\n"
    )
    shown = repr(load_settings()) + str(load_settings())
    for secret in (SECRET, PREVIOUS, "hunter2", "hunter3"):
        assert secret not in shown


@pytest.mark.parametrize(
    "text",
    [
        "redis_url = 'redis://:hunter2/@localhost/0'",
        "redis_url = 'tcp://:hunter2@localhost/0'",
        "secret = 'hunter2'",
        "previous_secret = 'hunter2'",
        "redis_url = 'redis://:hunter2@localhost/0'\nnonsense = 'hunter2'",
        f"secret = {SECRET!r}\n[pbx.main]\nhost = 'x'\ntoken = 'hunter2'\nuser = 'x'",
        f"secret = {SECRET!r}\n[pbx.main]\nclient_secret = 'hunter2'\nhots = 'hunter2'",
    ],
)
def test_an_error_contains_no_secret(write: Write, text: str) -> None:
    write(text)
    with pytest.raises(ConfigError) as wrong:
        load_settings()
    assert "hunter2" not in "".join(format_exception(wrong.value))


PBX = "[pbx.main]\nhost = 'https://pbx.example.com'\n"


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("", "pbx.main: needs either client_id and client_secret, or a token"),
        ("client_id = 'x'\ntoken = 'y'", "pbx.main: needs either"),
        ("client_id = 'x'", "pbx.main: client_id and client_secret belong together"),
        ("client_secret = 'x'", "pbx.main: client_id and client_secret belong together"),
        ("token_file = 'missing'", "pbx.main.token_file: cannot read"),
        ("token = 'x'\nuser = 'jane'", "pbx.main.user: "),
        ("token = 'x'\nhots = 'jane'", "pbx.main.hots: there is no such setting"),
    ],
)
def test_a_pbx_has_one_way_to_sign_in(table: str, problem: str, write: Write) -> None:
    write(f"secret = {SECRET!r}\n{PBX}{table}")
    [told] = problems()
    assert told.startswith(problem)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("token = 'x'", "pbx.office: needs a host, such as https://pbx.example.com"),
        ("dialect = 'asterisk'", "pbx.office.dialect: "),
        (
            "dialect = 'telphin'\ntoken = 'x'\nhost = 'https://x'",
            "pbx.office: Offhook does not speak the API of telphin: remove host, token",
        ),
    ],
)
def test_only_a_pbx_with_an_api_has_a_host(table: str, problem: str, write: Write) -> None:
    write(f"secret = {SECRET!r}\n[pbx.office]\n{table}")
    [told] = problems()
    assert told.startswith(problem)
    write(f"secret = {SECRET!r}\n[pbx.office]\ndialect = 'telphin'")
    assert load_settings().pbx["office"].host is None


def test_an_encoding_extends_ascii(write: Write) -> None:
    for wrong in ("utf-16", "klingon", "hex", "utf-7", "raw_unicode_escape", "", "a\0b"):
        with pytest.raises(ValueError, match="must be an encoding that extends ASCII"):
            PbxSettings(encoding=wrong)
    for right in ("cp1251", "latin-1", "koi8-r", "shift_jis"):
        assert PbxSettings(encoding=right).encoding == right


def test_a_pbx_whose_urls_are_registered_by_hand_may_have_an_encoding(write: Write) -> None:
    for dialect in ("voipnow", "telphin"):
        write(f"secret = {SECRET!r}\n[pbx.office]\ndialect = '{dialect}'\nencoding = 'cp1251'")
        office = load_settings().pbx["office"]
        assert (office.host, office.encoding) == (None, "cp1251")
    write(f"secret = {SECRET!r}\n[pbx.office]\nencoding = 'cp1251'\nuser = '7'")
    [problem] = problems()
    assert problem.startswith("pbx.office: needs a host, such as https://pbx.example.com; ")


def test_a_pbxs_files_are_relative_to_the_configuration(write: Write) -> None:
    path = write(
        f"secret = {SECRET!r}\n{PBX}client_id = 'app'\nclient_secret_file = 'hush'\n"
        "ca_file = 'ca.pem'\n"
    )
    (path.parent / "hush").write_text("hunter2\n")
    main = load_settings().pbx["main"]
    assert main.client_secret is not None
    assert main.client_secret.get_secret_value() == "hunter2"
    assert main.ca_file == path.parent / "ca.pem"
    assert "hunter2" not in repr(load_settings())


def test_a_pbx_may_come_from_the_environment(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write(f"secret = {SECRET!r}\n{PBX}")
    monkeypatch.setenv("OFFHOOK_PBX__MAIN__TOKEN", "hunter2")
    token = load_settings().pbx["main"].token
    assert token is not None
    assert token.get_secret_value() == "hunter2"


def test_the_environment_can_empty_a_token(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write(f"secret = {SECRET!r}\n{PBX}token_file = 'missing'\nca_file = 'missing'\n")
    for name, value in {"TOKEN": "", "CA_FILE": "", "CLIENT_ID": "a", "CLIENT_SECRET": "b"}.items():
        monkeypatch.setenv(f"OFFHOOK_PBX__MAIN__{name}", value)
    main = load_settings().pbx["main"]
    assert (main.token, main.ca_file, main.client_id) == (None, None, "a")


def test_a_pbxs_name_can_be_part_of_a_url(write: Write) -> None:
    for name in ("a b", "", "a/b", "-a", "x" * 41):
        table = PBX.replace("main", f"'{name}'")
        write(f"secret = {SECRET!r}\n{table}token = 'x'")
        [problem] = problems()
        assert problem.startswith(f"pbx.{name}: ")


def test_every_setting_has_a_description() -> None:
    for model in (
        Settings,
        HandlerSettings,
        PbxSettings,
        ConsoleSettings,
        ConsoleUser,
        ConsoleToken,
    ):
        for name, field in model.model_fields.items():
            assert field.description, name
