"""What Alembic runs for every command; ``appliance.storage.migrate`` opens its connection and
transaction."""

from __future__ import annotations

from alembic import context

from appliance.storage.tables import metadata

connection = context.config.attributes["connection"]

context.configure(
    connection=connection,
    target_metadata=metadata,
    compare_type=True,
    # SQLite changes a table by building it anew.
    render_as_batch=connection.dialect.name == "sqlite",
    autogenerate_plugins=["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"],
)

with context.begin_transaction():
    context.run_migrations()
