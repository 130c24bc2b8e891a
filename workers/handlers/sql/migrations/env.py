"""Run by alembic, with the connection and transaction of `migrations._upgrade`."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["tables"].revision,
)
context.run_migrations()
