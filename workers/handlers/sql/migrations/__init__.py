"""Migrate the tables of a database to the current schema, with alembic.

To change `tables`, add a file to `versions/`. Never change a released one.
"""

from alembic import command, op
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Column, Connection, column, inspect, select, table, text
from sqlalchemy.schema import SchemaItem

from workers.handlers.sql.tables import Tables

HEAD = "0002"  # the last file in `versions/`

_LOCK = 0x0FF400C  # any number, the same in every process


class NotOurs(Exception):
    """The database has tables that this release does not know."""


def prepare(connection: Connection, tables: Tables, patience: float) -> None:
    """Create missing tables, and migrate those of an earlier release, in the open transaction.

    Concurrent processes wait for each other.

    Args:
        patience: seconds to wait, on PostgreSQL.

    Raises:
        NotOurs: a table is not Offhook's, or is from a newer release.
        sqlalchemy.exc.SQLAlchemyError: any other fault of the database.
    """
    _wait_for_others(connection, patience)
    if _revision(connection, tables) != HEAD:
        _upgrade(connection, tables)
    tables.metadata.create_all(connection)  # those that were dropped


def make_table(name: str, *elements: SchemaItem) -> None:
    """Create a table in a migration, unless it exists.

    It may exist from a release without migrations, or from an interrupted attempt on a database
    that cannot roll back DDL.

    Raises:
        NotOurs: the existing table lacks some of these columns.
    """
    found = inspect(op.get_bind())
    if not found.has_table(name):
        op.create_table(name, *elements)
        return
    there = {column["name"] for column in found.get_columns(name)}
    columns = [element.name for element in elements if isinstance(element, Column)]
    missing = [column for column in columns if column not in there]
    if missing:
        raise NotOurs(
            f"the table {name} is not Offhook's: it has no column {', '.join(missing)}; "
            "rename it, or set another `prefix`"
        )


def _wait_for_others(connection: Connection, patience: float) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(
            "BEGIN IMMEDIATE"
        )  # the driver would begin only with the first row
    elif connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = {int(patience * 1000)}"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


def _revision(connection: Connection, tables: Tables) -> str | None:
    if not inspect(connection).has_table(tables.revision):
        return None
    found: str | None = connection.scalar(
        select(column("version_num")).select_from(table(tables.revision))
    )
    return found


def _upgrade(connection: Connection, tables: Tables) -> None:
    config = Config(attributes={"connection": connection, "tables": tables})
    config.set_main_option("script_location", "workers.handlers.sql:migrations")
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise NotOurs(
            f"the tables are from a newer release of Offhook: run that release ({error})"
        ) from error
