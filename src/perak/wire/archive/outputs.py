"""Packing outputs from a folder that a stranger's job wrote."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from perak.wire.archive.patterns import compile_patterns
from perak.wire.archive.shared import (
    FOLDER_FLAGS,
    OUTPUTS_BYTES_MAX,
    OUTPUTS_FILES_MAX,
    WALK_ENTRIES_MAX,
    ArchiveError,
    NothingPacked,
    Packed,
    closing_fd,
    open_folder,
    shown,
)
from perak.wire.archive.tree import Entry, Kind, Unpackable, check_limits, read_entry, write_archive

if TYPE_CHECKING:
    from pathspec import RegexPattern

# A job can leave a million pipes behind; their names all say the same.
SKIPPED_SHOWN_MAX = 100


def pack_outputs(
    root: Path,
    patterns: Sequence[str],
    dest: BinaryIO | Path,
    *,
    limit_bytes: int = OUTPUTS_BYTES_MAX,
    limit_files: int = OUTPUTS_FILES_MAX,
) -> Packed | NothingPacked:
    """Pack what matches `patterns` (`out/`, `model.joblib`, `logs/*.txt`) in a folder that a job wrote.

    Patterns start at `root`; a folder stands for all below it, `*` stays within one folder and `**` does not.
    The folder is not trusted: no link is followed at any time, and pipes, sockets, devices, links that lead
    out and names that are not UTF-8 are left out and listed in `skipped`. Writes nothing if nothing is left.

    Errors: `ArchiveError` for a pattern that leaves the folder, or outputs over a limit.
    """
    wanted = [_OutputPattern.parse(pattern) for pattern in patterns]
    found = _Found()
    with closing_fd(os.open(root, FOLDER_FLAGS)) as root_fd:
        entries = list(_output_entries(root_fd, wanted, found))
        check_limits(
            entries,
            limit_bytes,
            limit_files,
            what="the outputs",
            advice="Let the job write less, or name fewer files under `outputs`.",
        )
        if not entries:
            return NothingPacked(missing=found.missing(wanted), skipped=found.report_skipped())
        packed = write_archive(root_fd, entries, dest)
    return Packed(
        digest=packed.digest,
        size_bytes=packed.size_bytes,
        file_count=packed.file_count,
        raw_bytes=packed.raw_bytes,
        missing=found.missing(wanted),
        skipped=found.report_skipped(),
    )


@dataclass(frozen=True, slots=True)
class _OutputPattern:
    """One output pattern: its `text` as the renter wrote it, its leading parts without wildcards, and its
    matcher.
    """

    text: str
    fixed: tuple[str, ...]
    pattern: "RegexPattern"

    @classmethod
    def parse(cls, text: str) -> Self:
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if text.startswith(("/", "!")) or ".." in parts or "\0" in text or "\n" in text:
            raise ArchiveError(
                f"output {text!r} is not a path inside the work folder. Write it relative to workdir."
            )
        fixed: list[str] = []
        for part in parts:
            if any(char in part for char in "*?[\\"):
                break
            fixed.append(part)
        return cls(
            text,
            tuple(fixed),
            *compile_patterns(
                ["/" + "/".join(parts or ["**"]) + ("/" if text.endswith("/") else "")], "of the outputs"
            ),
        )

    def matches(self, name: str) -> bool:
        return self.pattern.match_file(name) is not None

    def may_match_below(self, folder: str) -> bool:
        """Whether a walk must enter `folder`: it lies on the way to the fixed parts, or beyond them."""
        parts = tuple(folder.strip("/").split("/"))
        return all(own == there for own, there in zip(self.fixed, parts, strict=False))


class _Found:
    """What a walk over outputs noticed on its way."""

    def __init__(self) -> None:
        self.matched: set[str] = set()
        self._skipped: list[str] = []
        self._skipped_count = 0

    def skip(self, name: str, reason: str) -> None:
        self._skipped_count += 1
        if len(self._skipped) < SKIPPED_SHOWN_MAX:
            self._skipped.append(f"{shown(name)}: {reason}")

    def missing(self, wanted: Sequence[_OutputPattern]) -> tuple[str, ...]:
        """The patterns that matched nothing."""
        return tuple(pattern.text for pattern in wanted if pattern.text not in self.matched)

    def report_skipped(self) -> tuple[str, ...]:
        hidden = self._skipped_count - len(self._skipped)
        return (*sorted(self._skipped), *((f"and {hidden:,} more",) if hidden else ()))


def _output_entries(root_fd: int, wanted: list[_OutputPattern], found: _Found) -> list[Entry]:
    """The entries that any pattern matches, sorted by name, noting in `found` what matched and what was
    skipped.
    """
    entries: list[Entry] = []
    walked = 0
    pending = [""]
    while pending:
        base = pending.pop()
        try:
            with open_folder(root_fd, base) as folder_fd:
                names = os.listdir(folder_fd)
                walked += len(names)
                if walked > WALK_ENTRIES_MAX:
                    raise ArchiveError(
                        f"the folders named under `outputs` have more than {WALK_ENTRIES_MAX:,} entries. "
                        "Let the job write fewer files, or name them more closely."
                    )
                for name in names:
                    entry = _output_entry(folder_fd, base, name, wanted, found)
                    if entry is None:
                        continue
                    if entry.matched:
                        entries.append(entry.entry)
                    if entry.enter:
                        pending.append(f"{entry.entry.name}/")
        except OSError as error:
            # The folder went away or became a link under our hands: then it is not an output.
            found.skip(base, error.strerror or str(error))
    return sorted(entries, key=lambda entry: entry.name)


@dataclass(frozen=True, slots=True)
class _Visited:
    entry: Entry
    matched: bool
    enter: bool


def _output_entry(
    folder_fd: int, base: str, name: str, wanted: list[_OutputPattern], found: _Found
) -> _Visited | None:
    path = f"{base}{name}"
    matched_as_file = {pattern.text for pattern in wanted if pattern.matches(path)}
    try:
        entry = read_entry(folder_fd, base, name)
    except Unpackable as reason:
        if matched_as_file:
            found.skip(path, str(reason))
        return None
    except OSError as error:
        found.skip(path, error.strerror or str(error))
        return None
    if entry.kind is not Kind.FOLDER:
        found.matched |= matched_as_file
        return _Visited(entry, bool(matched_as_file), enter=False)
    matched = {pattern.text for pattern in wanted if pattern.matches(f"{path}/")}
    found.matched |= matched
    return _Visited(entry, bool(matched), enter=any(pattern.may_match_below(path) for pattern in wanted))
