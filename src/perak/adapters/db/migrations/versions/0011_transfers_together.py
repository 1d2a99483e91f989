"""Transfers that are applied a statement at a time."""

from perak.adapters.db.migrations import run_sql_beside

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run_sql_beside(__file__)
