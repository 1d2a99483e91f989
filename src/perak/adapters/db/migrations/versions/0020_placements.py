"""What the market saw beside the offer that it gave a job."""

from perak.adapters.db.migrations import run_sql_beside

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    run_sql_beside(__file__)
