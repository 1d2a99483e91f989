"""When the end of a run should have been reported."""

from perak.adapters.db.migrations import run_sql_beside

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_sql_beside(__file__)
