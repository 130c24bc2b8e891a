"""Connect to Redis; bind the sockets of servers."""

import logging
import socket
from contextlib import suppress

from redis.exceptions import RedisError

from offhook.connection import connect_rq
from offhook.errors import ConfigError
from offhook.operations.server_risks import risks, unseen
from offhook.settings import Settings

log = logging.getLogger("offhook")


def log_risks(settings: Settings) -> None:
    """Log the settings of the Redis server that can lose events, if it answers."""
    with suppress(RedisError), connect_rq(settings.redis_url) as redis:
        for risk in risks(redis, settings):
            log.warning(risk)
        for sentence in unseen(redis):
            log.info(sentence)


def bound(host: str, port: int) -> socket.socket:
    """Bind a listening socket.

    Raises:
        ConfigError: the address is not on this machine, or the port is in use.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose with --host and --port"
        ) from error
    sock.set_inheritable(True)
    return sock
