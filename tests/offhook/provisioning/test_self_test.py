"""The self-test: does a receiver with this secret answer at public_url?"""

import asyncio

import pytest

from offhook.provisioning.self_test import in_the_way
from offhook.settings import Settings
from offhook_cli.embedded_server import free_port
from receiver.app import create_app
from tests.conftest import SECRET
from tests.unifiedapi.serving import Reply, Script, serve


def found(url: str, secret: str = SECRET) -> str | None:
    return asyncio.run(in_the_way(Settings(secret=secret, public_url=url)))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["", "/"])
def test_a_receiver_with_this_secret_answers(path: str, redis_url: str, tmp_path: object) -> None:
    settings = Settings(secret=SECRET, redis_url=redis_url)  # type: ignore[arg-type]
    with serve(create_app(settings)) as url:
        assert found(url + path) is None
        another = found(url + path, secret="another secret, forty characters long, too")
        assert another is not None
        assert "a receiver answers there, but with another secret" in another


def test_nobody_answers() -> None:
    port = free_port()
    assert found(f"http://127.0.0.1:{port}") == (
        f"public_url: no answer from 127.0.0.1:{port} (connection refused): does `offhook serve` "
        "run, and does its proxy lead there?"
    )


@pytest.mark.parametrize(
    "answer", [Reply(502), Reply(200, "Welcome!"), Reply(200, b"<html>"), Reply(301)]
)
def test_something_else_answers(answer: Reply) -> None:
    with serve(Script(answer)) as url:
        assert "is no receiver" in str(found(url))
