"""One check of the Redis server, for every process and command: can it be used, and is it safe?"""

from typing import Any

from redis import Redis, exceptions

from offhook.operations.server_risks import OLDEST, is_too_old, risks
from offhook.redis_url import without_password
from offhook.settings import Settings

_INSTALL = f"install Redis or Valkey {'.'.join(map(str, OLDEST))}, or newer"
_PASSING = (exceptions.ReadOnlyError, exceptions.OutOfMemoryError)  # ResponseErrors, too


def check(redis: Redis, settings: Settings) -> list[str]:
    """A sentence for each reason why the server cannot be used, or may lose events.

    Raises:
        RedisError: it does not answer, or not in words that Offhook knows; see `about`.
    """
    server = _name(settings)
    found = [too_old(redis, settings)]
    persistence: Any = redis.info("persistence")
    replication: Any = redis.info("replication")
    if persistence.get("loading"):
        left = persistence.get("loading_eta_seconds")
        found.append(f"{server} is still loading its data: it can be used in about {left} s")
    if replication.get("role") == "slave" and replication.get("slave_read_only", 1):
        primary = f"{replication.get('master_host')}:{replication.get('master_port')}"
        found.append(
            f"{server} is a read-only replica: set redis_url to its primary, {primary}, "
            "or to the Sentinels that know the primary"
        )
    return [*filter(None, found), *risks(redis, settings)]


def too_old(redis: Redis, settings: Settings) -> str:
    """Why the server's version cannot be used; empty if it can."""
    info: Any = redis.info("server")
    version = str(info.get("redis_version", ""))
    if not is_too_old(version):
        return ""
    return f"{_name(settings)} has version {version}, which is too old: {_INSTALL}"


def is_lasting(error: exceptions.RedisError) -> bool:
    """Whether waiting does not help: the server answers, and refuses."""
    refused = (exceptions.AuthenticationError, exceptions.InvalidResponse, exceptions.ResponseError)
    return isinstance(error, refused) and not isinstance(error, _PASSING)


def about(error: exceptions.RedisError, settings: Settings) -> str:
    """What the error says about the server, and what to do."""
    server, said = _name(settings), str(error)
    match error:
        case exceptions.AuthenticationError() if "HELLO" in said or "required" in said:
            return (
                f"{server} asks for a password: write it into redis_url, "
                "as redis://:PASSWORD@HOST:PORT/0"
            )
        case exceptions.AuthenticationError():
            return f"{server} rejected the user name or password in redis_url: correct it"
        case exceptions.NoPermissionError():
            return (
                f"{server} does not allow this user everything that Offhook needs ({said}): "
                "give the user the rights ~* &* +@all"
            )
        case exceptions.BusyLoadingError():
            return f"{server} is still loading its data: try again in a moment"
        case exceptions.ReadOnlyError():
            return f"{server} is a read-only replica: set redis_url to its primary"
        case exceptions.OutOfMemoryError():
            return (
                f"{server} is full: raise its maxmemory, or see with `offhook status` "
                "which handler is behind"
            )
        case exceptions.InvalidResponse():
            return f"{server} is not a Redis server: correct the host and port in redis_url"
        case exceptions.ConnectionError() if settings.redis_url.startswith("sentinel://"):
            return (
                f"the Sentinels in {without_password(settings.redis_url)}, or the server that "
                "they name, do not answer: start them, or correct redis_url"
            )
        case exceptions.ConnectionError() | exceptions.TimeoutError():
            return f"{server} does not answer: {_unreachable(said, settings.redis_url)}"
    if "unknown command `HELLO`" in said:
        return f"{server} is too old: {_INSTALL}"
    if "DB index" in said:
        return (
            f"{server} has no database of this number: set redis_url to one that exists, such as /0"
        )
    if "unknown command 'SENTINEL'" in said:
        return f"{server} is no Sentinel: write redis://, or correct the host and port"
    return f"{server} says: {said}"


def _unreachable(said: str, url: str) -> str:
    if "Name or service not known" in said or "No address associated" in said:
        return "its name is not known; correct the host in redis_url"
    if "certificate verify failed" in said:
        return "its certificate is not trusted; add ?ssl_ca_certs=FILE to redis_url"
    if url.startswith("rediss://"):
        return "start it, or set redis_url; without TLS it begins with redis://"
    if "closed by server" in said:
        return "it closed the connection; with TLS, redis_url begins with rediss://"
    return "start it, or set redis_url"


def _name(settings: Settings) -> str:
    return f"Redis at {without_password(settings.redis_url)}"
