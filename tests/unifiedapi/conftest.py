"""What the tests of the client share: a certificate, and a sandbox with each form of answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unifiedapi.serving import Server, serve
from unifiedapi.sandbox.server import create_sandbox
from unifiedapi.sandbox.store import Store
from unifiedapi.sandbox.tls import Certificate, make_certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), "127.0.0.1")


@pytest.fixture
def store() -> Store:
    return Store.example()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for the session; each test puts its app into it."""
    server = Server()
    with serve(server) as server.url:
        yield server


@pytest.fixture
def sandbox(store: Store, server: Server) -> str:
    """The URL of a sandbox PBX as it is by default."""
    server.app = create_sandbox(store)
    return server.url


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are kept in the test's own directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
