"""What a message to an owner is of."""

from perak.adapters.db.migrations import run_sql_beside

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_sql_beside(__file__)
