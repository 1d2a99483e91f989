"""What a job brings with it, and what its run may draw alone."""

from perak.adapters.db.migrations import run_sql_beside

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    run_sql_beside(__file__)
