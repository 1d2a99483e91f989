"""Windows that are reserved: a part of an offer, for a job, at a price agreed beforehand."""

from perak.adapters.db.migrations import run_sql_beside

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    run_sql_beside(__file__)
