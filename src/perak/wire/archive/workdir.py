"""Packing a renter's work folder."""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from perak.wire.archive.patterns import compile_patterns, mentions
from perak.wire.archive.shared import (
    FOLDER_FLAGS,
    WALK_ENTRIES_MAX,
    WORKDIR_BYTES_MAX,
    WORKDIR_FILES_MAX,
    ArchiveError,
    Packed,
    closing_fd,
    open_folder,
    open_regular,
    shown,
)
from perak.wire.archive.tree import Entry, Kind, Unpackable, check_limits, read_entry, write_archive

if TYPE_CHECKING:
    from pathspec import RegexPattern

IGNORE_FILES = (".gitignore", ".perakignore")
GIT_FOLDER = ".git"
# No hand writes a longer list; a file of another kind took the name.
IGNORE_CHARACTERS_MAX = 1_000_000


def pack_workdir(
    root: Path,
    dest: BinaryIO | Path,
    *,
    limit_bytes: int = WORKDIR_BYTES_MAX,
    limit_files: int = WORKDIR_FILES_MAX,
) -> Packed:
    """Pack a renter's folder, leaving out `.git` and what `.gitignore` and `.perakignore` name.

    Ignore files apply as in git, nested ones and negations included; those of the enclosing git repository
    count too. In one folder `.perakignore` has the last word over `.gitignore`.

    Errors: `ArchiveError` for a missing folder, a link out of it, a socket or device in it, or a tree over a
    limit.
    """
    try:
        root = root.resolve(strict=True)
        root_fd = os.open(root, FOLDER_FLAGS)
    except OSError as error:
        raise ArchiveError(f"cannot pack {root}: {error.strerror}. Name a folder that exists.") from error
    with closing_fd(root_fd):
        entries = _workdir_entries(root_fd, _rules_above(root))
        check_limits(
            entries,
            limit_bytes,
            limit_files,
            what="the work folder",
            advice="Name what the job does not need in .perakignore.",
        )
        return write_archive(root_fd, entries, dest)


@dataclass(frozen=True, slots=True)
class _Rules:
    """One folder's ignore files; a name less `cut`, or after `put`, is as they see it."""

    patterns: tuple["RegexPattern", ...]
    cut: str = ""
    put: str = ""

    def verdict(self, name: str) -> bool | None:
        """True: left out; False: named as kept; None: not mentioned. A folder's name ends in `/`."""
        name = self.put + name.removeprefix(self.cut)
        return next((p.include for p in reversed(self.patterns) if mentions(p, name)), None)


def _workdir_entries(root_fd: int, above: tuple[_Rules, ...]) -> list[Entry]:
    """All entries to pack, sorted by name; raises `ArchiveError` at the first one that cannot travel."""
    found: list[Entry] = []
    pending = [("", above)]
    while pending:
        base, outer = pending.pop()
        try:
            with open_folder(root_fd, base) as folder_fd:
                names = os.listdir(folder_fd)
                rules = outer + _rules_in(folder_fd, names, base)
                entries = [
                    _workdir_entry(folder_fd, base, name, rules) for name in names if name != GIT_FOLDER
                ]
        except OSError as error:
            place = shown(base) if base else "the work folder"
            raise ArchiveError(
                f"cannot read {place}: {error.strerror}. Make it readable, or name it in .perakignore."
            ) from error
        kept = [entry for entry in entries if entry is not None]
        found += kept
        pending += [(f"{entry.name}/", rules) for entry in kept if entry.kind is Kind.FOLDER]
        if len(found) > WALK_ENTRIES_MAX:
            raise ArchiveError(
                f"the work folder has more than {WALK_ENTRIES_MAX:,} files. "
                "Name what the job does not need in .perakignore."
            )
    return sorted(found, key=lambda entry: entry.name)


def _workdir_entry(folder_fd: int, base: str, name: str, rules: tuple[_Rules, ...]) -> Entry | None:
    """The entry, or None if it is ignored (asked first, so that an ignored socket disturbs nobody)."""
    is_folder = stat.S_ISDIR(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode)
    if _is_ignored(f"{base}{name}/" if is_folder else f"{base}{name}", rules):
        return None
    try:
        return read_entry(folder_fd, base, name)
    except Unpackable as reason:
        raise ArchiveError(
            f"cannot pack {shown(base + name)}: {reason}. Remove it, or name it in .perakignore."
        ) from None


def _is_ignored(name: str, rules: tuple[_Rules, ...]) -> bool:
    """The deepest ignore file that mentions a name decides."""
    return next((verdict for rule in reversed(rules) if (verdict := rule.verdict(name)) is not None), False)


def _rules_in(folder_fd: int, names: Iterable[str], base: str) -> tuple[_Rules, ...]:
    lines: list[str] = []
    present = set(names)
    for name in IGNORE_FILES:
        if name in present:
            with os.fdopen(open_regular(folder_fd, name), encoding="utf-8", errors="replace") as file:
                text = file.read(IGNORE_CHARACTERS_MAX + 1)
            if len(text) > IGNORE_CHARACTERS_MAX:
                raise ArchiveError(f"{shown(base + name)} is too long to be a list of patterns. Shorten it.")
            lines += text.splitlines()
    return (
        (_Rules(compile_patterns(lines, f"in {shown(base or 'the work folder')}"), cut=base),)
        if lines
        else ()
    )


def _rules_above(root: Path) -> tuple[_Rules, ...]:
    """The ignore files between the enclosing git repository's top and `root`, outermost first; none outside
    one.
    """
    above = [root, *root.parents]
    top = next((index for index, folder in enumerate(above) if (folder / GIT_FOLDER).exists()), 0)
    rules: list[_Rules] = []
    for folder in reversed(above[1 : top + 1]):
        lines: list[str] = []
        for name in IGNORE_FILES:
            if (file := folder / name).is_file():
                lines += file.read_text(encoding="utf-8", errors="replace").splitlines()
        if lines:
            rules.append(
                _Rules(
                    compile_patterns(lines, f"in {shown(str(folder))}"),
                    put=f"{root.relative_to(folder).as_posix()}/",
                )
            )
    return tuple(rules)
