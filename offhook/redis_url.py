"""URLs of Redis servers, and of Sentinels that know where the server is."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

from redis.asyncio.connection import parse_url

_SCHEMES = {"sentinel://": False, "sentinels://": True}  # whether to use TLS
_ACCOUNTS = {"username", "password", "sentinel_username", "sentinel_password"}
_TLS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}  # redis-py's names, as with rediss://


@dataclass(frozen=True)
class SentinelUrl:
    """`sentinel://HOST:PORT,HOST:PORT/NAME/DB?password=...&sentinel_password=...`, parsed.

    Options are those of redis-py. With `sentinels://`, they ask for TLS, to the Sentinels as well.
    """

    sentinels: list[tuple[str, int]]
    name: str
    options: dict[str, Any]
    sentinel_options: dict[str, Any]


def check_url(url: str) -> None:
    """Check a URL.

    Raises:
        ValueError: what is wrong with it, without quoting it: it may have a password.
    """
    scheme, _, rest = url.partition("://")
    path = rest.partition("?")[0].partition("/")[2].strip("/")
    database = path.partition("/")[2] if scheme in ("sentinel", "sentinels") else path
    if scheme in ("redis", "rediss") and re.search("[/?#].*[@#]", rest):
        raise ValueError(_MALFORMED)
    if scheme != "unix" and database and not re.fullmatch("[0-9]+", database):
        raise ValueError("must end in the number of a database, such as /0")
    try:
        if read_sentinel_url(url) is None:
            parse_url(url)
    except ValueError:
        raise ValueError(_MALFORMED) from None


_MALFORMED = (
    "is not a valid Redis URL; is the password percent-encoded? "
    "(%40 for @, %2F for /, %23 for #, %3A for :, %3F for ?)"
)


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
    scheme, slashes, rest = url.partition("://")
    tls = _SCHEMES.get(scheme + slashes)
    if tls is None:
        return None
    # By hand: urllib refuses brackets after the first of several hosts.
    location, _, query = rest.partition("?")
    hosts, _, path = location.partition("/")
    name, _, database = path.strip("/").partition("/")
    given = {key: values[-1] for key, values in parse_qs(query).items()}
    known = _ACCOUNTS | _TLS if tls else _ACCOUNTS
    if not name or not hosts or "@" in hosts or not given.keys() <= known:
        raise ValueError("not of the form sentinel://HOST:PORT,HOST:PORT/NAME/DB?password=...")
    of_sentinels = {key for key in given if key.startswith("sentinel_")}
    secured: dict[str, Any] = {key: given[key] for key in given.keys() & _TLS}
    if tls:
        secured["ssl"] = True
    return SentinelUrl(
        sentinels=[_host_and_port(each) for each in hosts.split(",")],
        name=unquote(name),
        options={key: given[key] for key in given.keys() - of_sentinels}
        | secured
        | {"db": int(database or 0)},
        sentinel_options={key.removeprefix("sentinel_"): given[key] for key in of_sentinels}
        | secured,
    )


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if colon and not text.endswith("]") else (text, 26379)
