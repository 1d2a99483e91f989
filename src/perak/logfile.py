"""A log file that its owner alone may read, and that never fills a disk."""

from __future__ import annotations

import logging
import os
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import cast

BYTES_MAX = 8 * 2**20
"""Of one file: some 40,000 lines."""
OLD_FILES = 2
"""Kept beside it, as FILE.1 and FILE.2."""


class LogFile(RotatingFileHandler):
    """Appends to `path`. Raises OSError where it can't be opened; a full disk later loses lines alone."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, maxBytes=BYTES_MAX, backupCount=OLD_FILES, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags | os.O_CLOEXEC, 0o600)

        return cast("TextIOWrapper", open(self.baseFilename, self.mode, encoding="utf-8", opener=opener))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        """Say nothing: the line is on stderr too, where it matters."""
