"""The grid's hours, and where nodes were seen."""

from perak.adapters.db.migrations import run_sql_beside

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    run_sql_beside(__file__)
