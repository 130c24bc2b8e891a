"""Create the table `events`, as the first release did without a migration."""

from alembic import context
from sqlalchemy import JSON, Column, String, Text

from workers.handlers.sql.migrations import make_table
from workers.handlers.sql.tables import KEY, MOMENT

revision = "0001"
down_revision = None


def upgrade() -> None:
    make_table(
        f"{context.config.attributes['tables'].prefix}events",
        Column("id", String(64), primary_key=True),
        Column("pbx", Text, nullable=False),
        Column("call_id", KEY, nullable=False, index=True),
        Column("extension", Text, nullable=False),
        Column("type", Text, nullable=False),
        Column("direction", Text),
        Column("status", Text),
        Column("caller_number", Text),
        Column("caller_name", Text),
        Column("caller_extension", Text),
        Column("called_number", Text),
        Column("called_extension", Text),
        Column("called_did", Text),
        Column("received", MOMENT, nullable=False, index=True),
        Column("parameters", JSON, nullable=False),
    )
