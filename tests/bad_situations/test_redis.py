"""What an integrator reads about a Redis server that Offhook cannot use, or should not."""

import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import redis
from redis.exceptions import ConnectionError, TimeoutError  # noqa: A004

from offhook.errors import ConfigError
from offhook.operations.server_check import about, servers
from offhook.settings import load_settings
from offhook_cli.startup import check_server
from tests.conftest import Configure
from tests.offhook_cli.conftest import Offhook

GREETING = b"%1\r\n+proto\r\n:3\r\n"  # to HELLO
HANDLER = '[handlers.screen]\nuse = "console"\n'


def info(**values: object) -> bytes:
    text = "".join(f"{name}:{value}\r\n" for name, value in values.items()).encode()
    return b"$%d\r\n%s\r\n" % (len(text), text)


@contextmanager
def pretending(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """Run a server that answers every command like a Redis server that the tests cannot start."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, suppress(ConnectionError):  # a client may not read every answer
                while command := connection.recv(65536):
                    connection.sendall(answer(command) * len(re.findall(rb"\*\d+\r\n\$", command)))

    threading.Thread(target=serve, daemon=True).start()
    yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"
    listening.close()


def old(command: bytes) -> bytes:
    return info(redis_version="6.2.14") if b"INFO\r\n$" in command else GREETING


def loading(command: bytes) -> bytes:
    values = {"redis_version": "7.2.4", "loading": 1, "loading_eta_seconds": 42, "aof_enabled": 1}
    return info(**values) if b"INFO\r\n$" in command else GREETING


def refusing(error: bytes) -> Callable[[bytes], bytes]:
    return lambda command: b"-" + error + b"\r\n"


PRETENDED = {
    "too old": (
        old,
        "stops",
        "Redis at URL has version 6.2.14, which is too old: install Redis or Valkey 7.2, or newer",
    ),
    "loading": (
        loading,
        "goes on",
        "Redis at URL is still loading its data: it can be used in about 42 s",
    ),
    "loading, and INFO too": (
        refusing(b"LOADING Redis is loading the dataset in memory"),
        "goes on",
        "Redis at URL is still loading its data: try again in a moment",
    ),
    "full": (
        refusing(b"OOM command not allowed when used memory > 'maxmemory'"),
        "goes on",
        "Redis at URL is full: raise its maxmemory, or see with `offhook status` "
        "which handler is behind",
    ),
    "not Redis": (
        lambda command: b"HTTP/1.1 400 Bad Request\r\n\r\n",
        "stops",
        "Redis at URL is not a Redis server: correct the host and port in redis_url",
    ),
    "much too old": (
        refusing(b"ERR unknown command `HELLO`, with args beginning with: `3`"),
        "stops",
        "Redis at URL is too old: install Redis or Valkey 7.2, or newer",
    ),
    "another error": (
        refusing(b"ERR something else"),
        "stops",
        "Redis at URL says: something else",
    ),
}


def checked(configure: Configure, url: str, caplog: pytest.LogCaptureFixture) -> tuple[str, str]:
    """Return what `work` does at its start, and the first sentence that it says."""
    configure(HANDLER, redis_url=url)
    caplog.set_level(logging.WARNING, "offhook")
    try:
        check_server(load_settings(), stop=True)
    except ConfigError as error:
        return "stops", str(error)
    return "goes on", caplog.messages[0]


@pytest.mark.parametrize("name", PRETENDED)
def test_a_server_that_cannot_be_used_is_one_sentence(
    name: str, configure: Configure, offhook: Offhook, caplog: pytest.LogCaptureFixture
) -> None:
    answer, then, sentence = PRETENDED[name]
    with pretending(answer) as url:
        assert checked(configure, url, caplog) == (then, sentence.replace("URL", url))
        caplog.clear()
        check_server(load_settings())  # as `serve`, which starts in any case
        assert caplog.messages[0] == sentence.replace("URL", url)


def test_an_error_of_an_old_server_is_about_its_age(configure: Configure, offhook: Offhook) -> None:
    def answer(command: bytes) -> bytes:
        if b"INFO\r\n$" in command or b"HELLO" in command or b"CLIENT" in command:
            return old(command)
        return b"-ERR wrong number of arguments for 'expire' command\r\n"

    with pretending(answer) as url:
        configure(HANDLER, redis_url=url)
        result = offhook("calls")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == PRETENDED["too old"][2].replace("URL", url) + "\n"


UNREACHABLE = {
    "redis://user:hunter2@127.0.0.1:1/0": (
        "Redis at redis://***@127.0.0.1:1/0 does not answer: start it, or set redis_url"
    ),
    "rediss://:hunter2@127.0.0.1:1/0": (
        "Redis at rediss://***@127.0.0.1:1/0 does not answer: start it, or set redis_url; "
        "without TLS it begins with redis://"
    ),
    "redis://no.such.host.invalid:6379/0": (
        "Redis at redis://no.such.host.invalid:6379/0 does not answer: its name is not known; "
        "correct the host in redis_url"
    ),
    "unix:///no/such/socket": (
        "Redis at unix:///no/such/socket does not answer: start it, or set redis_url"
    ),
}


@pytest.mark.parametrize("url", UNREACHABLE)
def test_an_unreachable_server_is_the_same_sentence_everywhere(
    url: str, configure: Configure, offhook: Offhook, caplog: pytest.LogCaptureFixture
) -> None:
    assert checked(configure, url, caplog) == ("goes on", UNREACHABLE[url])
    result = offhook("status")
    assert (result.exit_code, result.stderr) == (1, f"{UNREACHABLE[url]}\n")


def test_a_missing_or_wrong_password_is_named(
    redis_url: str, configure: Configure, offhook: Offhook, caplog: pytest.LogCaptureFixture
) -> None:
    where = redis_url.removeprefix("redis://")
    sentences = {
        "": f"Redis at {redis_url} asks for a password: write it into redis_url, "
        "as redis://:PASSWORD@HOST:PORT/0",
        ":wrong@": f"Redis at redis://***@{where} rejected the user name or password in "
        "redis_url: correct it",
    }
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("requirepass", "hunter2")
        client.execute_command("AUTH", "hunter2")
        try:
            for login, sentence in sentences.items():
                assert checked(configure, f"redis://{login}{where}", caplog) == ("stops", sentence)
                result = offhook("status")
                assert (result.exit_code, result.stderr) == (1, f"{sentence}\n")
        finally:
            client.config_set("requirepass", "")


# What is changed on a server, what changes it back, and the sentence in `work` and `status`.
CHANGES = {
    "REPLICAOF 127.0.0.1 1": (
        "REPLICAOF NO ONE",
        "Redis at URL is a read-only replica: set redis_url to its primary, 127.0.0.1:1, "
        "or to the Sentinels that know the primary",
    ),
    "CONFIG SET maxmemory-policy allkeys-lru": (
        "CONFIG SET maxmemory-policy noeviction",
        "the server URL deletes events when its memory is full (maxmemory-policy allkeys-lru): "
        "set maxmemory-policy to noeviction",
    ),
    "CONFIG SET appendonly no": (
        "CONFIG SET appendonly yes",
        "the server URL loses events when it restarts (appendonly no): set appendonly to yes",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_risky_server_is_the_same_sentence_everywhere(
    change: str,
    redis_url: str,
    configure: Configure,
    offhook: Offhook,
    caplog: pytest.LogCaptureFixture,
) -> None:
    back, sentence = CHANGES[change]
    sentence = sentence.replace("URL", redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command(*change.split())
        try:
            assert checked(configure, redis_url, caplog) == ("goes on", sentence)
            assert f"! {sentence}" in offhook("status").stdout
        finally:
            client.execute_command(*back.split())


def test_other_databases_and_users_are_named(
    redis_url: str, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    where = redis_url.removeprefix("redis://")
    url = f"{redis_url.rpartition('/')[0]}/99" if where.count("/") else f"{redis_url}/99"
    assert checked(configure, url, caplog) == (
        "stops",
        f"Redis at {url} has no database of this number: "
        "set redis_url to one that exists, such as /0",
    )
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "SETUSER", "bob", "on", ">pw", "~*", "+ping")
        try:
            assert checked(configure, f"redis://bob:pw@{where}", caplog) == (
                "stops",
                f"Redis at redis://***@{where} does not allow this user everything that Offhook "
                "needs (User bob has no permissions to run the 'info' command): "
                "give the user the rights ~* &* +@all",
            )
        finally:
            client.execute_command("ACL", "DELUSER", "bob")


def test_a_server_that_is_no_sentinel_is_named(
    redis_url: str, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    where = redis_url.removeprefix("redis://").partition("/")[0]
    assert checked(configure, f"sentinel://{where}/main/0", caplog) == (
        "stops",
        f"Redis at sentinel://{where}/main/0 is no Sentinel: write redis://, "
        "or correct the host and port",
    )


# Errors that need too much time, or a certificate, to be real.
ERRORS = {
    "sentinel://127.0.0.1:1/main/0?password=hunter2": (
        ConnectionError("No master found for 'main'"),
        "the Sentinels in sentinel://127.0.0.1:1/main/0, or the server that they name, "
        "do not answer: start them, or correct redis_url",
    ),
    "redis://tls.example.com:6379/0": (
        ConnectionError("Connection closed by server."),
        "Redis at redis://tls.example.com:6379/0 does not answer: it closed the connection; "
        "with TLS, redis_url begins with rediss://",
    ),
    "rediss://tls.example.com:6379/0": (
        ConnectionError("Error 1 connecting: certificate verify failed: self-signed certificate"),
        "Redis at rediss://tls.example.com:6379/0 does not answer: its certificate is not "
        "trusted; add ?ssl_ca_certs=FILE to redis_url",
    ),
    "redis://slow.example.com:6379/0": (
        TimeoutError("Timeout reading from socket"),
        "Redis at redis://slow.example.com:6379/0 does not answer: start it, or set redis_url",
    ),
}


@pytest.mark.parametrize("url", ERRORS)
def test_an_error_says_what_to_do(url: str, configure: Configure) -> None:
    configure(redis_url=url)
    error, sentence = ERRORS[url]
    [server] = servers(load_settings())
    assert about(error, server) == sentence


def test_a_sentence_about_the_server_of_the_jobs_names_its_setting(
    configure: Configure, offhook: Offhook, caplog: pytest.LogCaptureFixture
) -> None:
    sentence = "Redis at redis://***@127.0.0.1:1/0 does not answer: start it, or set rq_url"
    configure(HANDLER, rq_url="redis://:hunter2@127.0.0.1:1/0")
    check_server(load_settings(), stop=True)
    assert caplog.messages[-1] == sentence
    for command in (["status"], ["dead", "list"]):
        result = offhook(*command)
        assert (result.exit_code, result.stderr) == (1, f"{sentence}\n")
    with pretending(old) as url:
        configure(HANDLER, rq_url=url)
        with pytest.raises(ConfigError, match=f"Redis at {url} has version 6.2.14"):
            check_server(load_settings(), stop=True)
