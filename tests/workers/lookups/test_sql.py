"""The SQL lookup on a real SQLite file and a real PostgreSQL server."""

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from offhook import TemporaryError
from offhook.errors import ConfigError
from offhook.testing import configured, look_up
from tests.postgres import PASSWORD, Postgres, postgres
from workers.handlers.sql.database_url import readable
from workers.lookups.sql import SqlLookup

JANE = "+40211234567"
QUERY = "SELECT name FROM contacts WHERE phone = :number"
ROWS = [("+40211234567", "Jane Doe"), ("0722 111 222", "Ion"), ("+40211234599", None)]

made: list[SqlLookup] = []


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of contacts. Every connection of a lookup is closed after the test."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/my contacts.db"
    else:
        url = request.getfixturevalue("server").url
    _fill(url)
    yield url
    while made:
        made.pop()._engine.dispose()


def _fill(url: str) -> None:
    engine = create_engine(readable(configured(SqlLookup, url=url, query=QUERY).url))
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS contacts"))
        connection.execute(text("CREATE TABLE contacts (phone TEXT, name TEXT)"))
        for phone, name in ROWS:
            connection.execute(
                text("INSERT INTO contacts VALUES (:phone, :name)"), {"phone": phone, "name": name}
            )
    engine.dispose()


def lookup(url: str, query: str = QUERY) -> SqlLookup:
    made.append(configured(SqlLookup, url=url, query=query))
    return made[-1]


def test_the_first_column_of_the_first_row_is_the_name(url: str) -> None:
    book = lookup(url)
    assert look_up(book, JANE) == "Jane Doe"
    assert look_up(book, "0211234567", region="RO") == "Jane Doe"
    assert look_up(book, "+40211234599") is None
    assert look_up(book, "+40211234500") is None


def test_a_query_may_use_the_national_digits(url: str) -> None:
    query = "SELECT name FROM contacts WHERE REPLACE(phone, ' ', '') LIKE '%' || :digits"
    assert look_up(lookup(url, query), "+40722111222") == "Ion"


def test_a_result_is_converted_to_text(url: str) -> None:
    assert look_up(lookup(url, "SELECT 42 WHERE :number <> ''"), JANE) == "42"


@pytest.mark.parametrize(
    "number", ["12345' OR '1'='1", "12345'; DROP TABLE contacts; --", "12345\\' %s :digits"]
)
def test_a_number_is_never_part_of_the_statement(number: str, url: str) -> None:
    book = lookup(url)
    assert look_up(book, number) is None
    assert look_up(book, JANE) == "Jane Doe"


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM contacts WHERE phone = :number",
        "UPDATE contacts SET name = 'x' WHERE phone = :number",
    ],
)
def test_a_query_changes_nothing(query: str, url: str) -> None:
    with pytest.raises(TemporaryError, match=r"(?i)read-?only"):
        look_up(lookup(url, query), JANE)
    assert look_up(lookup(url), JANE) == "Jane Doe"


@pytest.mark.parametrize(
    "query",
    ["SELECT name FROM contacts", "SELECT :number, :secret", "SELECT name WHERE p = :phone"],
)
def test_a_query_requires_the_number_and_no_other_parameter(query: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        configured(SqlLookup, url="sqlite:///contacts.db", query=query)
    assert wrong.value.problems == [
        "options.query: must contain :number (such as +442079460100) or :digits (2079460100), "
        "or both, and no other :name"
    ]


def test_a_missing_file_is_temporary_and_not_created(tmp_path: Path) -> None:
    path = tmp_path / "nothing.db"
    with pytest.raises(TemporaryError, match="unable to open database file"):
        look_up(configured(SqlLookup, url=f"sqlite:///{path}", query=QUERY), JANE)
    assert not path.exists()


def test_a_relative_path_starts_in_the_workers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _fill("sqlite:///contacts.db")
    assert look_up(lookup("sqlite:///contacts.db"), JANE) == "Jane Doe"
    made.pop()._engine.dispose()


def test_it_reconnects_to_a_restarted_server(server: Postgres) -> None:
    _fill(server.url)
    book = lookup(server.url)
    assert look_up(book, JANE) == "Jane Doe"
    server.stop()
    try:
        with pytest.raises(TemporaryError, match="the database did not answer") as wrong:
            look_up(book, JANE)
        assert PASSWORD not in str(wrong.value)
    finally:
        server.start()
    assert look_up(book, JANE) == "Jane Doe"
    server.stop()
    server.start()
    assert look_up(book, JANE) == "Jane Doe"  # by a new connection, without an error before
    made.pop()._engine.dispose()


def test_a_slow_statement_is_cancelled(
    server: Postgres,
) -> None:
    class Impatient(SqlLookup):
        timeout = 1

    query = "SELECT pg_sleep(60)::text WHERE :number <> ''"
    book = configured(Impatient, url=server.url, query=query)
    began = time.monotonic()
    with pytest.raises(TemporaryError, match=r"did not answer within 0\.2 s"):
        look_up(book, JANE, timeout=0.2)
    assert time.monotonic() - began < 30
    with psycopg.connect(server.url) as connection:
        while connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
        ).fetchone() != (0,):
            assert time.monotonic() - began < 50
            time.sleep(0.1)
            connection.rollback()
    book._engine.dispose()


def test_the_repr_shows_no_secret() -> None:
    book = configured(SqlLookup, url="postgresql://offhook:hush@db.example.com/calls", query=QUERY)
    assert "hush" not in repr(book)
