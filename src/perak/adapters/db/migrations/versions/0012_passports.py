"""Inspections, wipes, standings and passports of devices."""

from perak.adapters.db.migrations import run_sql_beside

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    run_sql_beside(__file__)
