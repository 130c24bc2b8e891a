"""URLs of Redis servers, and of Sentinels that know where the server is."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

from redis.asyncio.connection import parse_url


@dataclass(frozen=True)
class SentinelUrl:
    """`sentinel://HOST:PORT,HOST:PORT/NAME/DB?password=...&sentinel_password=...`, parsed."""

    sentinels: list[tuple[str, int]]
    name: str
    options: dict[str, Any]
    sentinel_options: dict[str, Any]


def check_url(url: str) -> None:
    """Raise `ValueError` if the URL is malformed."""
    if read_sentinel_url(url) is None:
        parse_url(url)


def without_password(url: str) -> str:
    """The URL for messages."""
    url = url.partition("?")[0]
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://***@{tail}" if at else url


def read_sentinel_url(url: str) -> SentinelUrl | None:
    """Parse the URL; None if it is not a Sentinel URL.

    Raises:
        ValueError: the URL is malformed.
    """
    if not url.startswith("sentinel://"):
        return None
    # By hand: urllib refuses brackets after the first of several hosts.
    location, _, query = url.removeprefix("sentinel://").partition("?")
    hosts, _, path = location.partition("/")
    name, _, database = path.strip("/").partition("/")
    given = {key: values[-1] for key, values in parse_qs(query).items()}
    known = {"username", "password", "sentinel_username", "sentinel_password"}
    if not name or not hosts or "@" in hosts or not given.keys() <= known:
        raise ValueError("not of the form sentinel://HOST:PORT,HOST:PORT/NAME/DB?password=...")
    prefix = "sentinel_"
    options = {key: given[key] for key in given if not key.startswith(prefix)}
    return SentinelUrl(
        sentinels=[_host_and_port(each) for each in hosts.split(",")],
        name=unquote(name),
        options=options | {"db": int(database or 0)},
        sentinel_options={k.removeprefix(prefix): given[k] for k in given if k not in options},
    )


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if colon and not text.endswith("]") else (text, 26379)
