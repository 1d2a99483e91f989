"""Incidents of devices, and when their failures were last counted."""

from perak.adapters.db.migrations import run_sql_beside

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    run_sql_beside(__file__)
