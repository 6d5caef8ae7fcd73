"""Runs migrations on the connection that `byok.store.migrate` hands over."""

from alembic import context

from byok.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
