"""The agent's own log: JSON lines for machines, or words for people and the lines in a file."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

from perak.logfile import LogFile


def set_up_logging(level: str, file: Path | None = None) -> None:
    """One JSON object a line on stderr, with the same keys as the exchange's.

    `file`: they go there, informational ones too, and stderr has `level` and above in words for people.
    """
    shown = logging.StreamHandler(sys.stderr)
    shown.setFormatter(_JsonLines() if file is None else _Words())
    shown.setLevel(level.upper())
    handlers: list[logging.Handler] = [shown]
    if file is not None:
        handlers.append(LogFile(file))
        handlers[-1].setFormatter(_JsonLines())
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(shown.level if file is None else min(shown.level, logging.INFO))
    logging.getLogger("websockets").setLevel(logging.WARNING)


class _Words(logging.Formatter):
    """One line; of an exception its last line, as the file has the rest."""

    def format(self, record: logging.LogRecord) -> str:
        why = ""
        if record.exc_info:
            why = f" ({self.formatException(record.exc_info).rpartition(chr(10))[2]})"
        return f"perak agent: {record.getMessage()}{why}"


class _JsonLines(logging.Formatter):
    """structlog is the exchange's, and not among the agent's dependencies; this is all that we need of it."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": at.replace("+00:00", "Z"),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
