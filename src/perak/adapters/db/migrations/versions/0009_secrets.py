"""Secrets, scopes of keys, and the trail of who did what."""

from perak.adapters.db.migrations import run_sql_beside

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_sql_beside(__file__)
