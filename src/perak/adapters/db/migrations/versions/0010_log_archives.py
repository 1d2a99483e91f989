"""Logs of ended runs in the blob store."""

from perak.adapters.db.migrations import run_sql_beside

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run_sql_beside(__file__)
