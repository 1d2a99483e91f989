"""Structured logs on stderr: JSON lines, or coloured text where a person looks on; or in a file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import structlog

from perak.logfile import LogFile

_NOT_SAID = ("level", "logger", "timestamp", "exception")


def configure_logging(*, level: str = "info", json: bool | None = None, file: Path | None = None) -> None:
    """Send our logs and those of libraries one way. `json` None: unless stderr is a terminal.

    `file`: JSON lines go there, informational ones too, and stderr has `level` and above in words for people.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    to_json: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]
    coloured = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    root = logging.getLogger()
    root.setLevel(level.upper())
    shown = logging.StreamHandler(sys.stderr)
    root.handlers[:] = [shown]
    if file is None:
        shown.setFormatter(_formatter(shared, to_json if as_json else [coloured]))
    else:
        shown.setLevel(level.upper())
        shown.setFormatter(_formatter(shared, [structlog.processors.format_exc_info, _in_words]))
        kept = LogFile(file)
        kept.setFormatter(_formatter(shared, to_json))
        root.addHandler(kept)
        root.setLevel(min(root.level, logging.INFO))
    # Libraries speak up only when something is wrong.
    for name in ("uvicorn", "uvicorn.error", "asyncio", "sse_starlette", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _formatter(
    shared: list[structlog.typing.Processor], render: list[structlog.typing.Processor]
) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )


def _in_words(_logger: object, _name: str, said: structlog.typing.EventDict) -> str:
    """One line: what happened, with what; of an exception its last line, as the file has the rest."""
    facts = [f"{name} {value}" for name, value in said.items() if name not in (*_NOT_SAID, "event")]
    if exception := str(said.get("exception", "")).strip():
        facts.append(exception.rpartition("\n")[2])
    return f"perak exchange: {said['event']}" + (f" ({', '.join(facts)})" if facts else "")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
