"""Create the tables `calls` and `legs`."""

from alembic import context
from sqlalchemy import BigInteger, Boolean, Column, Double, ForeignKeyConstraint, Integer, Text

from workers.handlers.sql.migrations import make_table
from workers.handlers.sql.tables import KEY, MOMENT

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    prefix = context.config.attributes["tables"].prefix
    make_table(
        f"{prefix}calls",
        Column("pbx", KEY, primary_key=True),
        Column("call_id", KEY, primary_key=True),
        Column("direction", Text, nullable=False),
        Column("caller_number", Text),
        Column("caller_name", Text),
        Column("caller_e164", Text),
        Column("caller_extension", Text),
        Column("called_number", Text),
        Column("called_e164", Text),
        Column("called_did", Text),
        Column("called_extension", Text),
        Column("started", MOMENT, nullable=False, index=True),
        Column("answered", MOMENT),
        Column("ended", MOMENT),
        Column("answered_by", Text),
        Column("ring_seconds", Double),
        Column("talk_seconds", Double),
        Column("outcome", Text),
        Column("gaps", Text, nullable=False),
        Column("closed_by", Text),
        Column("recovered", Boolean, nullable=False),
        Column("recording", Text),
        Column("version", BigInteger, nullable=False),
    )
    make_table(
        f"{prefix}legs",
        Column("pbx", KEY, primary_key=True),
        Column("call_id", KEY, primary_key=True),
        Column("leg", Integer, primary_key=True, autoincrement=False),
        Column("extension", KEY, nullable=False, index=True),
        Column("kind", Text),
        Column("direction", Text),
        Column("rang", MOMENT),
        Column("answered", MOMENT),
        Column("ended", MOMENT),
        Column("ring_seconds", Double),
        Column("talk_seconds", Double),
        Column("status", Text),
        Column("leg_id", Text),
        ForeignKeyConstraint(
            ["pbx", "call_id"],
            [f"{prefix}calls.pbx", f"{prefix}calls.call_id"],
            ondelete="CASCADE",
        ),
    )
