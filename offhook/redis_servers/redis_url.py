"""URLs of Redis servers, of Sentinels that know where the server is, and of clusters."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from redis.asyncio.connection import parse_url

# Schemes of URLs with several hosts. With TLS they end in s.
_SENTINELS, _CLUSTER = ("sentinel", "sentinels"), ("cluster", "clusters")
_FORMS = {
    _SENTINELS: "sentinel://HOST:PORT,HOST:PORT/NAME/DB?password=...",
    _CLUSTER: "cluster://HOST:PORT,HOST:PORT/?password=...",
}
SCHEMES = ("redis", "rediss", "unix", *_SENTINELS, *_CLUSTER)
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


@dataclass(frozen=True)
class ClusterUrl:
    """`cluster://HOST:PORT,HOST:PORT/?username=...&password=...`, parsed.

    Options are those of redis-py, for every node. With `clusters://`, they ask for TLS.

    Attributes:
        nodes: some of them, which know the others.
    """

    nodes: list[tuple[str, int]]
    options: dict[str, Any]

    def of_node(self, host: str, port: int) -> str:
        """The URL of one node, as of a server."""
        given = {key: value for key, value in self.options.items() if key != "ssl"}
        user, password = given.pop("username", ""), given.pop("password", "")
        account = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
        scheme = "rediss" if self.options.get("ssl") else "redis"
        query = f"?{urlencode(given)}" if given else ""
        return f"{scheme}://{account}{f'[{host}]' if ':' in host else host}:{port}/0{query}"


def check_url(url: str) -> None:
    """Check a URL.

    Raises:
        ValueError: what is wrong with it, without quoting it: it may have a password.
    """
    scheme, _, rest = url.partition("://")
    path = rest.partition("?")[0].partition("/")[2].strip("/")
    database = path.partition("/")[2] if scheme in _SENTINELS else path
    if scheme in ("redis", "rediss") and re.search("[/?#].*[@#]", rest):
        raise ValueError(_MALFORMED)
    if scheme != "unix" and database and not re.fullmatch("[0-9]+", database):
        raise ValueError("must end in the number of a database, such as /0")
    if scheme in _CLUSTER and int(database or 0):
        raise ValueError("must not name a database: a cluster has only database 0")
    try:
        if read_sentinel_url(url) is None and read_cluster_url(url) is None:
            parse_url(url)
    except ValueError:
        raise ValueError(_MALFORMED) from None


_MALFORMED = (
    "is not a valid Redis URL; is the password percent-encoded? "
    "(%40 for @, %2F for /, %23 for #, %3A for :, %3F for ?)"
)


def wrong_urls(redis_url: str, rq_url: str | None) -> Iterator[str]:
    """What is wrong with the two URLs together."""
    if (rq_url or redis_url).startswith(tuple(f"{scheme}://" for scheme in _CLUSTER)):
        yield (
            "rq_url: RQ cannot keep its jobs on a cluster: set it to a Redis or Valkey server, "
            "such as redis://HOST:6379/0"
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
    parts = _read(url, _SENTINELS, _ACCOUNTS, 26379)
    if parts is None:
        return None
    hosts, path, given = parts
    name, _, database = path.partition("/")
    if not name:
        raise ValueError(f"not of the form {_FORMS[_SENTINELS]}")
    of_sentinels = {key for key in given if key.startswith("sentinel_")}
    secured = {key: given[key] for key in given.keys() & {*_TLS, "ssl"}}
    return SentinelUrl(
        sentinels=hosts,
        name=unquote(name),
        options={key: given[key] for key in given.keys() - of_sentinels}
        | {"db": int(database or 0)},
        sentinel_options={key.removeprefix("sentinel_"): given[key] for key in of_sentinels}
        | secured,
    )


def read_cluster_url(url: str) -> ClusterUrl | None:
    """Parse the URL; None if it is not that of a cluster.

    Raises:
        ValueError: the URL is malformed.
    """
    parts = _read(url, _CLUSTER, {"username", "password"}, 6379)
    return None if parts is None else ClusterUrl(parts[0], parts[2])


def _read(
    url: str, schemes: tuple[str, str], accounts: set[str], port: int
) -> tuple[list[tuple[str, int]], str, dict[str, Any]] | None:
    """The hosts, the path and the options of a URL with several hosts; None for another scheme.

    By hand: urllib refuses brackets after the first of several hosts.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in schemes:
        return None
    location, _, query = rest.partition("?")
    hosts, _, path = location.partition("/")
    given: dict[str, Any] = {key: values[-1] for key, values in parse_qs(query).items()}
    tls = scheme == schemes[1]
    if not hosts or "@" in hosts or not given.keys() <= (accounts | _TLS if tls else accounts):
        raise ValueError(f"not of the form {_FORMS[schemes]}")
    if tls:
        given["ssl"] = True
    return [_host_and_port(each, port) for each in hosts.split(",")], path.strip("/"), given


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if colon and not text.endswith("]") else (text, default)
