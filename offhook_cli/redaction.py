"""Removes secrets, and for a bug report everything that may be one, from texts and settings."""

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

from offhook.callback_url import PREFIX
from offhook.logs import HIDDEN
from offhook.redis_servers.redis_url import without_password
from offhook.settings import Settings, config_folder, config_path, tenant_files
from offhook.settings.faults import read_secret

# The settings whose texts may be shown to anyone. All others are hidden, those of plugins too.
_SHOWN = {
    *("durability", "journal", "revoked", "region", "daily_summary", "proxies"),
    *("use", "events", "direction", "pbx", "process", "start"),
    *("dialect", "encoding", "host", "ca_file", "zone"),
}
_URLS = {"public_url", "redis_url", "rq_url"}
# The names of settings and options that are likely to be secrets.
_SECRET = re.compile("secret|token|passw|credential|auth|header|cookie|key|url|dsn|pin$", re.I)
_SHORTEST = 4  # characters: a shorter secret is not recognizable in a text
_MOST = 100_000  # a number in the options of a plugin that is larger may be a phone number

_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_CALLBACK = re.compile(rf"{PREFIX}/\S+")
_PHONE_NUMBER = re.compile(r"\+\d[\d ()./-]{4,}\d|\b\d{7,}\b|\b\d+\*[\d*]+")


class Redactor:
    """Replaces secrets in texts.

    Args:
        secrets: texts to replace, wherever they are.
        numbers: whether to replace phone numbers, too.
    """

    def __init__(self, secrets: Iterable[str], *, numbers: bool = False) -> None:
        written = {form for each in secrets for form in forms(each) if len(form) >= _SHORTEST}
        longest_first = sorted(written, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._numbers = numbers

    def text(self, text: str) -> str:
        """The text without secrets."""
        text = _CREDENTIALS.sub(f"{HIDDEN}@", self._secrets.sub(HIDDEN, text))
        text = _CALLBACK.sub(f"{PREFIX}/{HIDDEN}", text)
        return _PHONE_NUMBER.sub(HIDDEN, text) if self._numbers else text

    def values(self, value: Any) -> Any:
        """JSON values without secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(key): self.values(each) for key, each in value.items()}
        return [*map(self.values, value)] if isinstance(value, list) else value


def forms(secret: str) -> Iterator[str]:
    """How a secret may be written."""
    yield from (secret, quote(secret, safe=""), unquote(secret))
    yield from (line.strip() for line in secret.splitlines())


def secrets_in(sources: Iterable[Mapping[str, Any]], *, all_texts: bool = False) -> set[str]:
    """The secrets in configurations, those in files that they name included.

    Args:
        all_texts: count every text as a secret, but for those that anyone may read.
    """
    found: set[str] = set()
    for source in sources:
        for path, text in _texts(source):
            name = _name(path)
            if _is_shown(path):
                continue
            if name.endswith("_file"):
                if all_texts or _SECRET.search(name):
                    found.add(_content(text))
            elif name in _URLS:
                found |= set(_parts(text))
            elif all_texts or _SECRET.search(name):
                found |= {text, *_parts(text)}
    return found


def is_secret(path: str) -> bool:
    """Return whether a setting is likely to be a secret, such as `pbx.main.token`."""
    return not _is_shown(path) and bool(_SECRET.search(_name(path)))


def sources(settings: Settings | None) -> list[Mapping[str, Any]]:
    """What a configuration consists of: its file, the environment, the settings if they load."""
    found: list[Mapping[str, Any]] = [file_settings(), *_tenants(), _environment()]
    return found if settings is None else [*found, settings.model_dump()]


def file_settings() -> dict[str, Any]:
    """The content of the configuration file; empty if it cannot be read."""
    with suppress(OSError, ValueError):
        return tomllib.loads(config_path().read_text("utf-8"))
    return {}


def _tenants() -> Iterator[dict[str, Any]]:
    """The content of each tenant's file that can be read."""
    for path in tenant_files():
        with suppress(OSError, ValueError):
            yield tomllib.loads(path.read_text("utf-8"))


def secret_files() -> Iterator[tuple[Path, str]]:
    """The files that are likely to hold a secret, and the settings that name them."""
    for source in sources(None):
        for path, text in _texts(source):
            if path.endswith("_file") and is_secret(path.removesuffix("_file")):
                yield (config_folder() / text).absolute(), path.lstrip(".")


def secret_settings(settings: Mapping[str, Any]) -> Iterator[str]:
    """The settings in the content of a configuration file that are likely to be secrets."""
    for path, text in _texts(settings):
        if _name(path) in _URLS:
            found = bool(_parts(text)) and _name(path) != "public_url"
        else:
            found = is_secret(path) and not path.endswith("_file")
        if found:
            yield path.lstrip(".")


def redacted(settings: Mapping[str, Any], *, checked: bool) -> Any:
    """The settings without any text that may be a secret.

    Args:
        checked: whether they have their types; otherwise URLs are hidden, too.
    """
    return _redacted(settings, "", checked=checked)


def _redacted(value: Any, path: str, *, checked: bool) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if _is_option(path):
            return value if abs(value) < _MOST and not is_secret(path) else HIDDEN
        return value if checked or not is_secret(path) else HIDDEN
    if _is_option(path):  # also a list or a table, whose keys may be phone numbers
        return HIDDEN
    if isinstance(value, Mapping):
        return {
            str(key): _redacted(each, f"{path}.{key}", checked=checked)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        ordered = value if isinstance(value, list | tuple) else sorted(value, key=str)
        return [_redacted(each, path, checked=checked) for each in ordered]
    if isinstance(value, str | Path | IPv4Network | IPv6Network):
        if _is_shown(path):
            return str(value)
        if checked and _name(path) in _URLS:
            return _address(str(value))
    return HIDDEN


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each text in a configuration, with the place of its setting, such as `.pbx.main.token`."""
    if isinstance(value, SecretStr):
        yield f"{path}.secret", value.get_secret_value()
    elif isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _texts(each, f"{path}.{key}")
            if _is_option(path):
                yield path, str(key)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from _texts(each, path)
    elif isinstance(value, int) and _is_option(path) and abs(value) >= _MOST:
        yield path, str(value)


def _environment() -> dict[str, str]:
    return {
        name.removeprefix("OFFHOOK_").lower().replace("__", "."): value
        for name, value in os.environ.items()
        if name.startswith("OFFHOOK_") and name != "OFFHOOK_CONFIG"
    }


def _is_option(path: str) -> bool:
    return ".options." in path


def _name(path: str) -> str:
    """The name of a setting; of an option of a plugin, with the tables that it is in."""
    return path.partition(".options.")[2] or path.rpartition(".")[2]


def _is_shown(path: str) -> bool:
    return not _is_option(path) and _name(path) in _SHOWN


def _content(file: str) -> str:
    content = read_secret(file, config_folder())
    return content if isinstance(content, str) else ""


_USER = "offhook"  # of the server, with deploy/redis-users.sh; and a word of every page


def _parts(url: str) -> list[str]:
    """The parts of a URL that may be secrets: user, password and query; the path of a website."""
    scheme, _, rest = url.partition("://")
    account, at, place = rest.rpartition("@")
    location, _, query = place.partition("?")
    path = location.partition("/")[2] if scheme in ("http", "https") else ""
    values = [each.partition("=")[2] for each in query.split("&")]
    accounts = [account, *account.split(":")] if at else []
    found = (*accounts, path, *values)
    return [each for each in found if len(each) >= _SHORTEST and each != _USER]


def _address(url: str) -> str:
    """The URL without what may be a secret."""
    if not url.startswith("http"):
        return without_password(url)
    with suppress(ValueError):
        found = urlsplit(url)
        host = found.netloc.rpartition("@")[2]
        return f"{found.scheme}://{host}{f'/{HIDDEN}' if found.path.strip('/') else ''}"
    return HIDDEN
