"""What transfers refer to, looked up a statement at a time."""

from perak.adapters.db.migrations import run_sql_beside

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    run_sql_beside(__file__)
