"""Shared by these tests: a certificate, and a sandbox with a client."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.unifiedapi.serving import Server, serve
from unifiedapi.client import UnifiedApi
from unifiedapi.oauth import BearerToken
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
    """One server for the session. Each test gives it an app."""
    server = Server()
    with serve(server) as server.url:
        yield server


@pytest.fixture
def sandbox(store: Store, server: Server) -> str:
    """The URL of a sandbox with default options."""
    server.app = create_sandbox(store)
    return server.url


@pytest.fixture
async def api(server: Server) -> AsyncIterator[UnifiedApi]:
    """A client for the server. It does not retry."""
    async with UnifiedApi(server.url, BearerToken("sandbox-token"), waits=()) as api:
        yield api
