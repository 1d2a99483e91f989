"""What is wrong with a job file, by file, line and key."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TypedDict

from pydantic_core import ErrorDetails

from perak.domain.errors import InvalidInput, NotSupportedYet
from perak.wire.jobfile.block import Block
from perak.wire.jobfile.blocks import BLOCKS, EXAMPLE
from perak.wire.jobfile.values import KeyPath, Positions


class FieldError(TypedDict):
    """One thing that is wrong, and where."""

    file: str | None
    line: int | None
    key: str
    message: str


class JobFileError(InvalidInput):
    """The job file can't be understood; `errors` names every place, `detail` is all of them as text."""

    code = "invalid_job"

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("\n".join(_as_line(error) for error in errors))
        self.errors = errors


class JobFileNotSupportedYet(JobFileError, NotSupportedYet):
    """All that is wrong is that it asks for what is not built yet."""

    code = "not_supported_yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    file: str | None
    positions: Positions

    def error(self, path: KeyPath, message: str) -> FieldError:
        """An error at `path`, or at the nearest enclosing key whose line is known."""
        known = next((path[:n] for n in range(len(path), -1, -1) if path[:n] in self.positions), None)
        line = self.positions[known] if known is not None else None
        return field_error(self.file, line, dotted(path), message)


def field_error(file: str | None, line: int | None, key: str, message: str) -> FieldError:
    return FieldError(file=file, line=line, key=key, message=message)


def by_line(error: FieldError) -> int:
    return error["line"] or 0


def _as_line(error: FieldError) -> str:
    """``job.yaml:7: resources.gpus: there is no such key; did you mean gpu?``"""
    place = error["file"] or ""
    if place and error["line"] is not None:
        place = f"{place}:{error['line']}"
    return ": ".join(part for part in (place, error["key"], error["message"]) if part)


def dotted(path: KeyPath) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:80]}" for part in path)
    return text.removeprefix(".")


def as_field_error(details: ErrorDetails, where: Where) -> FieldError:
    path: KeyPath = details["loc"]
    kind = details["type"]
    if kind == "extra_forbidden":
        return where.error(path, _unknown_key(path))
    if kind == "missing" and len(path) > 1:
        return where.error(path, "is missing; this block needs it")
    if kind == "missing":
        return where.error(path, "is missing; a job file needs at least " + EXAMPLE)
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        keys = ", ".join(_keys(BLOCKS[path])) if path in BLOCKS else "names and values"
        return where.error(path, f"must be a block of keys: {keys}")
    if kind in ("tuple_type", "list_type"):
        return where.error(path, "must be a list, such as [a, b]")
    below = details.get("ctx", {}).get("at")
    return where.error((*path, below) if below is not None else path, details["msg"])


def _unknown_key(path: KeyPath) -> str:
    """Says which key was probably meant: one of the same block, or the same word in another."""
    key = str(path[-1])[:80]
    beside = _keys(BLOCKS[path[:-1]])
    everywhere = {name: dotted((*block, name)) for block, model in BLOCKS.items() for name in _keys(model)}
    if key in everywhere:
        return f"there is no such key here; did you mean {everywhere[key]}?"
    if near := difflib.get_close_matches(key.lower(), beside, n=1, cutoff=0.6):
        return f"there is no such key; did you mean {near[0]}?"
    if near := difflib.get_close_matches(key.lower(), everywhere, n=1, cutoff=0.75):
        return f"there is no such key here; did you mean {everywhere[near[0]]}?"
    return f"there is no such key; the keys here are {', '.join(beside)}"


def _keys(block: type[Block]) -> list[str]:
    """As they are written."""
    return [field.alias or name for name, field in block.model_fields.items()]
