"""When an owner takes a machine back, and what renters were told of that."""

from perak.adapters.db.migrations import run_sql_beside

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    run_sql_beside(__file__)
