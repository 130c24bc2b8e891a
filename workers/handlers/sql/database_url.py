"""`DatabaseUrl`: an option with the URL of a database."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, SecretStr, ValidationInfo
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError


def readable(url: SecretStr) -> URL:
    """Parse a URL; `postgresql://` gets the driver that offhook[postgresql] installs."""
    parsed = make_url(url.get_secret_value())
    if parsed.drivername in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _check(value: SecretStr, info: ValidationInfo) -> SecretStr:
    try:
        url = readable(value)
        dialect = url.get_dialect()
        dialect.import_dbapi()
    except (ArgumentError, ValueError):  # their messages may show the password
        raise ValueError(
            "must be a database URL, such as sqlite:///calls.db or postgresql://user:password@host/db"
        ) from None
    except ImportError as error:
        raise ValueError(
            f"needs {error.name or 'a driver'}, which is not installed; "
            "for PostgreSQL: pip install 'offhook[postgresql]'"
        ) from error
    if dialect.is_async:
        raise ValueError("names an asyncio driver: use another one, such as postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and (url.database or ":memory:") == ":memory:":
        raise ValueError("is a database in memory, which ends with its process: name a file")
    if url.get_backend_name() == "sqlite" and not str(url.database).startswith("file:"):
        folder = (info.context or {}).get("folder", Path())  # of the configuration
        return SecretStr(
            url.set(database=str(folder / str(url.database))).render_as_string(hide_password=False)
        )
    return value


DatabaseUrl = Annotated[SecretStr, AfterValidator(_check)]
