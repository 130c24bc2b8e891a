"""What the tests of handlers share: real databases."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.postgres import Postgres, postgres
from tests.workers.handlers import sql_logs


@pytest.fixture(scope="session")
def database_server() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: a file that does not exist yet, or a new database on the server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/calls.db"
    server: Postgres = request.getfixturevalue("database_server")
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS calls WITH (FORCE)")
        connection.execute("CREATE DATABASE calls")
    return server.url.removesuffix("postgres") + "calls"


@pytest.fixture(autouse=True)
def _logs_closed() -> Iterator[None]:
    """Close the connections of call logs after the test."""
    yield
    sql_logs.close_all()
