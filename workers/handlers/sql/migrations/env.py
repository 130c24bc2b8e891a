"""What alembic runs: it has the connection, and its transaction, from `migrations._upgrade`."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["tables"].revision,
)
context.run_migrations()
