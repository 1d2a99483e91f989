"""What the market remembers: forecasts, held quotes, and what happened."""

from perak.adapters.db.migrations import run_sql_beside

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    run_sql_beside(__file__)
