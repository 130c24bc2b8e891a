"""What the handlers' tests share: the other sides, all of them real."""

from collections.abc import Iterator

import pytest

from tests.http_target import HttpTarget, http_target
from tests.postgres import Postgres, postgres


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    """A recording HTTP server."""
    with http_target() as running:
        yield running


@pytest.fixture(scope="session")
def database_server() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    with postgres() as running:
        yield running
