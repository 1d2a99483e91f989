"""The schema's history: for each step `versions/NNNN_name.sql`, and beside it Alembic's few lines of Python.

To add a step, write the SQL and copy the last `.py`; set `revision` to the new number and `down_revision`
to the one before. Steps only go forwards; all pending ones run in one transaction.
"""

from pathlib import Path

from alembic import op


def run_sql_beside(revision_file: str) -> None:
    """Emit the `.sql` file of the same name as `revision_file`, exactly as it is written.

    `op.execute` would read `:name` in it as a parameter and expects one statement; this expects neither.
    """
    op.get_context().impl.static_output(Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8"))
