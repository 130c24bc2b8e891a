"""Connect to Redis; bind the sockets of servers."""

import logging
import logging.config
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from redis.exceptions import RedisError

from offhook.connection import connect_rq
from offhook.errors import ConfigError
from offhook.inbox import keys
from offhook.inbox.numbering import check_layout
from offhook.logs import log_config
from offhook.operations.server_check import (
    RedisServer,
    about,
    check,
    each_of,
    is_lasting,
    servers,
    too_old,
)
from offhook.operations.server_risks import unseen
from offhook.settings import Settings, load_settings
from offhook_cli.redaction import forms, secrets_in, sources

log = logging.getLogger("offhook")


def start_logging(settings: Settings | None = None) -> dict[str, Any]:
    """Log to standard error from here on. Return the configuration, for other processes.

    Args:
        settings: those that load now if not given.
    """
    if settings is None:
        with suppress(ConfigError):  # the command says why
            settings = load_settings()
    if settings is None:
        config = log_config()
    else:
        config = log_config(
            settings.log_format,
            settings.log_level,
            {form for each in secrets_in(sources(settings)) for form in forms(each)},
            mask_numbers=settings.log_mask_numbers,
        )
    logging.config.dictConfig(config)
    return config


def check_server(settings: Settings, *, stop: bool = False) -> None:
    """Log why a Redis server cannot be used, or may lose events.

    Args:
        stop: stop if waiting cannot help: a wrong password, a server that is too old, ...

    Raises:
        ConfigError: what is wrong, if `stop`.
    """
    for server in servers(settings):
        try:
            for each in each_of(server):
                _check(each, settings, stop=stop)
        except RedisError as error:
            if stop and is_lasting(error):
                raise ConfigError(about(error, server)) from error
            log.error(about(error, server))


def check_inbox(settings: Settings) -> None:
    """Check that this version can use the inbox, if Redis answers.

    Raises:
        LaterLayout: it cannot.
    """
    with suppress(RedisError), connect_rq(settings.redis_url) as redis:
        record: Any = redis.hgetall(keys.PARTITIONS)
        check_layout(record)


def _check(server: RedisServer, settings: Settings, *, stop: bool) -> None:
    with connect_rq(server.url) as redis:
        if stop and (sentence := too_old(redis, server)):
            raise ConfigError(sentence)
        for sentence in check(redis, server, settings):
            log.warning(sentence)
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


@contextmanager
def console_packages() -> Iterator[None]:
    """Import what the console needs.

    Raises:
        ConfigError: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the console needs the package {error.name}: pip install 'offhook[console]'"
        ) from error


def on_hangup() -> "Callable[[], subprocess.Popen[bytes]] | None":
    """What to do on SIGHUP: begin a reload, as `offhook reload` does. None in a terminal, where it
    means that the terminal is gone.
    """
    return None if sys.stdin is not None and sys.stdin.isatty() else _begin_reload


def reload_on_hangup() -> None:
    """From now on, SIGHUP begins a reload, except in a terminal."""
    if on_hangup() is not None:
        signal.signal(signal.SIGHUP, begin_reload)


def begin_reload(*_: object) -> None:
    """Begin a reload, and wait for its end in a thread."""
    if begin := on_hangup():
        threading.Thread(target=begin().wait, name="hangup", daemon=True).start()


def _begin_reload() -> "subprocess.Popen[bytes]":
    # In a process of its own: this one has loaded the version that is to be replaced.
    return subprocess.Popen(
        [sys.executable, "-m", "offhook_cli", "reload"], stdin=subprocess.DEVNULL
    )
