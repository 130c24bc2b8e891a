"""The self-test: whether a receiver with our secret answers at public_url."""

from pathlib import Path

import pytest

from offhook.provisioning.self_test import reachability_problem
from offhook.settings import Settings
from receiver.app import create_app
from tests.conftest import SECRET
from tests.ports import free_port
from tests.unifiedapi.serving import Reply, Script, serve


async def problem(url: str, secret: str = SECRET) -> str | None:
    return await reachability_problem(Settings(secret=secret, public_url=url))  # type: ignore[arg-type]


async def test_a_receiver_must_have_our_secret(redis_url: str, tmp_path: Path) -> None:
    settings = Settings(
        secret=SECRET,  # type: ignore[arg-type]
        redis_url=redis_url,
        journal=tmp_path / "journal",
    )
    with serve(create_app(settings)) as url:
        for path in ("", "/"):
            assert await problem(url + path) is None
            other = await problem(url + path, secret="another secret, forty characters long, too")
            assert other is not None
            assert "a receiver answers there, but with another secret" in other


async def test_a_closed_port_is_a_problem() -> None:
    port = free_port()
    assert await problem(f"http://127.0.0.1:{port}") == (
        f"public_url: no answer from 127.0.0.1:{port} (connection refused): is `offhook serve` "
        "running, and does its proxy lead there?"
    )


@pytest.mark.parametrize(
    "answer", [Reply(502), Reply(200, "Welcome!"), Reply(200, b"<html>"), Reply(301)]
)
async def test_another_server_is_a_problem(answer: Reply) -> None:
    with serve(Script(answer)) as url:
        assert "is not a receiver of Offhook" in str(await problem(url))
