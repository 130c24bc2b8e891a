"""Bring the tables of a database to the form that this release knows, with alembic.

A change of `tables` is a new file in `versions/`, and never a change of one that was released.
"""

from alembic import command, op
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Column, Connection, column, inspect, select, table, text
from sqlalchemy.schema import SchemaItem

from workers.handlers.sql.tables import Tables

HEAD = "0002"  # the last of `versions/`

_LOCK = 0x0FF400C  # any number, the same in every process


class NotOurs(Exception):
    """What is in the database is not of this release's making."""


def prepare(connection: Connection, tables: Tables, patience: float) -> None:
    """Make what is missing, and change what an earlier release has made, in the open transaction.

    Several processes may do so at once: they go one after the other.

    Args:
        patience: seconds to wait for the others, where the database can tell.

    Raises:
        NotOurs: a table has another form than ours, or a newer release made it.
        sqlalchemy.exc.SQLAlchemyError: anything else that the database does not do.
    """
    _wait_for_others(connection, patience)
    if _revision(connection, tables) != HEAD:
        _upgrade(connection, tables)
    tables.metadata.create_all(connection)  # what somebody has dropped


def make_table(name: str, *elements: SchemaItem) -> None:
    """For migrations: make a table, unless a release without migrations has made it.

    Nor is it made again when an attempt was interrupted that the database does not take back.

    Raises:
        NotOurs: there is one of that name without these columns.
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
            f"its table {name} is not Offhook's, it has no column {', '.join(missing)}: "
            "rename it, or set another `prefix`"
        )


def _wait_for_others(connection: Connection, patience: float) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver would begin with the first row
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
            f"the tables were made by a newer release of Offhook: run that one ({error})"
        ) from error
