"""One check of a Redis server, for every process and command: can it be used, and is it safe?"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from redis import Redis, exceptions

from offhook.connection import connect_rq, server_urls
from offhook.operations.server_risks import OLDEST, is_too_old, risks
from offhook.redis_servers.redis_url import without_password
from offhook.settings import Settings

_INSTALL = f"install Redis or Valkey {'.'.join(map(str, OLDEST))}, or newer"
_PASSING = (exceptions.ReadOnlyError, exceptions.OutOfMemoryError)  # ResponseErrors, too


@dataclass(frozen=True)
class RedisServer:
    """A server that Offhook uses.

    Attributes:
        setting: the one that has its URL.
    """

    setting: str
    url: str

    def __str__(self) -> str:
        return f"Redis at {without_password(self.url)}"


def servers(settings: Settings) -> list[RedisServer]:
    """The server of the inbox, or its cluster, and that of RQ's jobs if it is another one."""
    found = [RedisServer("redis_url", settings.redis_url)]
    if settings.jobs_url != settings.redis_url:
        found.append(RedisServer("rq_url", settings.jobs_url))
    return found


def each_of(server: RedisServer, tries: int = 3) -> list[RedisServer]:
    """The server; or, of a cluster, each primary.

    Raises:
        RedisError: no node of the cluster answers.
    """
    return [replace(server, url=url) for url in server_urls(server.url, tries)]


def check_all(settings: Settings) -> list[str]:
    """A sentence for each reason why a server cannot be used, or may lose events.

    Raises:
        RedisError: one does not answer.
    """
    found = []
    for server in chain.from_iterable(map(each_of, servers(settings))):
        with connect_rq(server.url, tries=3) as redis:
            found += check(redis, server, settings)
    return found


def check(redis: Redis, server: RedisServer, settings: Settings) -> list[str]:
    """A sentence for each reason why the server cannot be used, or may lose events.

    Raises:
        RedisError: it does not answer, or not in words that Offhook knows; see `about`.
    """
    persistence: Any = redis.info("persistence")
    replication: Any = redis.info("replication")
    found = [
        too_old(redis, server),
        loading(persistence, server),
        read_only(replication, server),
    ]
    has_inbox = server.setting == "redis_url"
    return [*filter(None, found), *risks(redis, settings, server.url, has_inbox=has_inbox)]


def too_old(redis: Redis, server: RedisServer) -> str:
    """Why the server's version cannot be used; empty if it can."""
    info: Any = redis.info("server")
    return about_version(info, server)


# Each of these takes a section of INFO, and returns an empty text if there is nothing to say.


def about_version(info: Mapping[str, Any], server: RedisServer) -> str:
    """Why the server's version cannot be used."""
    version = str(info.get("redis_version", ""))
    if not is_too_old(version):
        return ""
    return f"{server} has version {version}, which is too old: {_INSTALL}"


def loading(persistence: Mapping[str, Any], server: RedisServer) -> str:
    """How long the server still loads its data."""
    if not persistence.get("loading"):
        return ""
    left = persistence.get("loading_eta_seconds")
    return f"{server} is still loading its data: it can be used in about {left} s"


def read_only(replication: Mapping[str, Any], server: RedisServer) -> str:
    """Which server is to be used instead of this replica."""
    if replication.get("role") != "slave" or not replication.get("slave_read_only", 1):
        return ""
    primary = f"{replication.get('master_host')}:{replication.get('master_port')}"
    return (
        f"{server} is a read-only replica: set {server.setting} to its primary, {primary}, "
        "or to the Sentinels that know the primary"
    )


def is_lasting(error: exceptions.RedisError) -> bool:
    """Whether waiting does not help: the server answers, and refuses."""
    refused = (exceptions.AuthenticationError, exceptions.InvalidResponse, exceptions.ResponseError)
    return isinstance(error, refused) and not isinstance(error, _PASSING)


def fault(error: exceptions.RedisError, settings: Settings) -> str:
    """What an error says about the server that it comes from, and what to do.

    An error does not say which server that is: of two, it is the one that does not work now.
    """
    found = servers(settings)
    for server in found if len(found) > 1 else ():
        try:
            for each in each_of(server, tries=0):
                with connect_rq(each.url, tries=0) as redis:
                    redis.ping()
        except exceptions.RedisError as failed:
            return about(failed, server)
    sentences = [about(error, found[0])]
    if isinstance(error, exceptions.ResponseError):  # an old server refuses what it does not know
        for server in found:
            with suppress(exceptions.RedisError):
                for each in each_of(server, tries=0):
                    with connect_rq(each.url, tries=0) as redis:
                        sentences.insert(0, too_old(redis, each))
    return next(filter(None, sentences))


def about(error: exceptions.RedisError, server: RedisServer) -> str:
    """What the error says about the server, and what to do."""
    said, setting = str(error), server.setting
    match error:
        case exceptions.AuthenticationError() if "HELLO" in said or "required" in said:
            return (
                f"{server} asks for a password: write it into {setting}, "
                "as redis://:PASSWORD@HOST:PORT/0"
            )
        case exceptions.AuthenticationError():
            return f"{server} rejected the user name or password in {setting}: correct it"
        case exceptions.NoPermissionError():
            return (
                f"{server} does not allow this user everything that Offhook needs ({said}): "
                "give the user the rights ~* &* +@all"
            )
        case exceptions.BusyLoadingError():
            return f"{server} is still loading its data: try again in a moment"
        case exceptions.ReadOnlyError():
            return f"{server} is a read-only replica: set {setting} to its primary"
        case exceptions.OutOfMemoryError():
            return (
                f"{server} is full: raise its maxmemory, or see with `offhook status` "
                "which handler is behind"
            )
        case exceptions.InvalidResponse():
            return f"{server} is not a Redis server: correct the host and port in {setting}"
        case exceptions.ConnectionError() if server.url.startswith(("cluster://", "clusters://")):
            return (
                f"no node in {without_password(server.url)} says which nodes have the slots: "
                f"start the cluster, or correct {setting}"
            )
        case exceptions.ConnectionError() if server.url.startswith("sentinel://"):
            return (
                f"the Sentinels in {without_password(server.url)}, or the server that "
                f"they name, do not answer: start them, or correct {setting}"
            )
        case exceptions.ConnectionError() | exceptions.TimeoutError():
            return f"{server} does not answer: {_unreachable(said, server)}"
    if "unknown command `HELLO`" in said:
        return f"{server} is too old: {_INSTALL}"
    if "DB index" in said:
        return (
            f"{server} has no database of this number: set {setting} to one that exists, such as /0"
        )
    if "cluster support disabled" in said:
        return f"{server} is no cluster: write redis://, or correct the host and port"
    if "unknown command 'SENTINEL'" in said:
        return f"{server} is no Sentinel: write redis://, or correct the host and port"
    return f"{server} says: {said}"


def _unreachable(said: str, server: RedisServer) -> str:
    setting = server.setting
    if "Name or service not known" in said or "No address associated" in said:
        return f"its name is not known; correct the host in {setting}"
    if "certificate verify failed" in said:
        return f"its certificate is not trusted; add ?ssl_ca_certs=FILE to {setting}"
    if server.url.startswith("rediss://"):
        return f"start it, or set {setting}; without TLS it begins with redis://"
    if "closed by server" in said:
        return f"it closed the connection; with TLS, {setting} begins with rediss://"
    return f"start it, or set {setting}"
