"""Alembic's environment: it renders the statements as one script, which `perak.adapters.db.migrate` runs."""

from alembic import context

assert context.is_offline_mode(), "migrations are rendered here and carried out by perak.adapters.db.migrate"
context.configure(dialect_name="postgresql", transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
