"""Who has the session of a node."""

from perak.adapters.db.migrations import run_sql_beside

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_sql_beside(__file__)
