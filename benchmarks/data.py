"""Where the traces of others lie, which are not part of the project."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(os.environ.get("PERAK_DATA") or Path(__file__).parents[2] / "shared" / "data")
"""Beside the project, unless PERAK_DATA says where."""
INTENSITY_2022 = FOLDER / "carbon" / "ci_hourly" / "electricitymaps_2022_123zones.csv.gz"
PHILLY_JOBS = FOLDER / "market" / "sia" / "philly.csv.gz"
GAIA_JOBS = FOLDER / "jobs" / "gaia_pai_1k.csv"


def missing(*files: Path) -> str | None:
    """Why something that needs `files` is skipped, or None where all are there."""
    lacking = [file for file in files if not file.is_file()]
    if not lacking:
        return None
    return f"skipped: there is no {lacking[0].relative_to(FOLDER)} in {FOLDER}; PERAK_DATA names the folder"
