"""The format in which work folders and outputs travel: a deterministic, gzip-compressed tar.

Both ends distrust what they read. A work folder is packed on the renter's machine and unpacked by a node's
agent, which may be root; outputs are packed by that agent from a folder that a stranger's job wrote, and
unpacked on the renter's machine. So neither direction follows a symbolic link, and every size and count has a
limit.

Rules of the format: regular files, folders and symbolic links only; names are relative UTF-8 paths, each at
most once; modes are 0644, 0755 for what its owner may execute and for folders; owners and times are zero. The
same tree gives the same digest wherever the same zlib compresses it.
"""

import errno
import gzip
import hashlib
import heapq
import io
import os
import secrets
import shutil
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

if TYPE_CHECKING:
    from pathspec import RegexPattern

MIB = 1024 * 1024
# Code and small data: larger sets are inputs with a place of their own, not part of every upload.
WORKDIR_BYTES_MAX = 512 * MIB
WORKDIR_FILES_MAX = 20_000
# A fine-tuned model of a few billion parameters fits; what is larger belongs in the renter's own store.
OUTPUTS_BYTES_MAX = 8 * 1024 * MIB
OUTPUTS_FILES_MAX = 50_000
# A job can fill its scratch with empty files; past this many we stop looking instead of walking for hours.
WALK_ENTRIES_MAX = 500_000
# Deep trees make every open slow (we walk from the root each time); no real project comes near.
DEPTH_MAX = 64
# A tar's long names arrive in headers that tarfile reads into memory at once; PATH_MAX is 4,096 bytes.
HEADER_BYTES_MAX = 64 * 1024
# What an archive may hold beyond its contents: two headers an entry, each padded to a block, and the end.
ENTRY_OVERHEAD_BYTES = 4096
# How many of the largest files an error about size names, and how many names any error or report lists.
OFFENDERS_SHOWN = 5
SKIPPED_SHOWN_MAX = 100
# Measured on Python sources: level 6 takes over twice as long and saves 6%; weights compress at no level.
COMPRESSION_LEVEL = 4
CHUNK_BYTES = 256 * 1024

IGNORE_FILES = (".gitignore", ".perakignore")
GIT_FOLDER = ".git"

FILE_MODE = 0o644
EXECUTABLE_MODE = 0o755
FOLDER_MODE = 0o755

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK keeps a pipe that took a file's place from holding us for ever.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


# No hand writes a longer list; a file of another kind took the name.
IGNORE_CHARACTERS_MAX = 1_000_000
# The name of a group in pathspec's regular expressions, see `_mentions`.
_MATCHED_FOLDER = "ps_d"


class ArchiveError(ValueError):
    """A tree or an archive that we refuse; its message is for the user and says what to do."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What an archive holds.

    `size_bytes` is the archive, `raw_bytes` the contents before compression; `file_count` counts files and
    links. `missing` are the output patterns that matched nothing, `skipped` the paths left out, each with its
    reason.
    """

    digest: str
    size_bytes: int
    file_count: int
    raw_bytes: int
    missing: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


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
        root_fd = os.open(root, _FOLDER_FLAGS)
    except OSError as error:
        raise ArchiveError(f"cannot pack {root}: {error.strerror}. Name a folder that exists.") from error
    with _closing_fd(root_fd):
        entries = _workdir_entries(root_fd, _rules_above(root))
        _check_limits(
            entries,
            limit_bytes,
            limit_files,
            what="the work folder",
            advice="Name what the job does not need in .perakignore.",
        )
        return _write_archive(root_fd, entries, dest)


def pack_outputs(
    root: Path,
    patterns: Sequence[str],
    dest: BinaryIO | Path,
    *,
    limit_bytes: int = OUTPUTS_BYTES_MAX,
    limit_files: int = OUTPUTS_FILES_MAX,
) -> Packed | None:
    """Pack what matches `patterns` (`out/`, `model.joblib`, `logs/*.txt`) in a folder that a job wrote.

    Patterns start at `root`; a folder stands for all below it, `*` stays within one folder and `**` does not.
    The folder is not trusted: no link is followed at any time, and pipes, sockets, devices, links that lead
    out and names that are not UTF-8 are left out and listed in `skipped`. Returns None, writing nothing, if
    nothing matched.

    Errors: `ArchiveError` for a pattern that leaves the folder, or outputs over a limit.
    """
    wanted = [_OutputPattern.parse(pattern) for pattern in patterns]
    found = _Found()
    with _closing_fd(os.open(root, _FOLDER_FLAGS)) as root_fd:
        entries = list(_output_entries(root_fd, wanted, found))
        _check_limits(
            entries,
            limit_bytes,
            limit_files,
            what="the outputs",
            advice="Let the job write less, or name fewer files under `outputs`.",
        )
        if not entries:
            return None
        packed = _write_archive(root_fd, entries, dest)
    return Packed(
        digest=packed.digest,
        size_bytes=packed.size_bytes,
        file_count=packed.file_count,
        raw_bytes=packed.raw_bytes,
        missing=tuple(pattern.text for pattern in wanted if pattern.text not in found.matched),
        skipped=found.report_skipped(),
    )


def unpack(
    src: BinaryIO | Path,
    dest: Path,
    *,
    limit_bytes: int,
    limit_files: int,
    owner: tuple[int, int] | None = None,
) -> None:
    """Unpack an archive that anyone may have made into `dest`, a new or an empty folder; all or nothing.

    Refused: absolute names, `..`, names that come twice or lead through a link, hard links, devices, links
    out of `dest`, and more than `limit_bytes` of contents or `limit_files` entries, however small the
    archive. Setuid, setgid and sticky bits are dropped. `owner` is (uid, gid) for all that is made, for an
    agent that is root.

    Errors: `ArchiveError`; `dest` is then absent, or empty if it was there before.
    """
    with ExitStack() as stack:
        stream = stack.enter_context(src.open("rb")) if isinstance(src, Path) else src
        if dest.is_symlink() or (dest.exists() and not dest.is_dir()):
            raise ArchiveError(f"cannot unpack to {dest}: it is not a folder. Name a new or an empty folder.")
        if not dest.exists():
            _unpack_and_rename(stream, dest, limit_bytes, limit_files, owner)
            return
        if any(dest.iterdir()):
            raise ArchiveError(
                f"cannot unpack to {dest}: the folder is not empty. Name a new or an empty folder."
            )
        try:
            _unpack_into(stream, dest, limit_bytes, limit_files, owner)
        except BaseException:
            _empty(dest)
            raise


# Trees: what there is to pack


class _Kind(Enum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One thing to pack: `name` relative with `/`, `size_bytes` of a file only, `target` of a link only."""

    name: str
    kind: _Kind
    executable: bool = False
    size_bytes: int = 0
    target: str = ""


class _Unpackable(Exception):
    """An entry that cannot travel, with the reason; a work folder refuses it, outputs skip it."""


def _read_entry(folder_fd: int, base: str, name: str) -> _Entry:
    """What `base` stands for, by lstat alone. Raises `_Unpackable` for what cannot travel."""
    path = f"{base}{name}"
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise _Unpackable("its name is not UTF-8") from error
    status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        return _Entry(path, _Kind.FILE, bool(status.st_mode & stat.S_IXUSR), status.st_size)
    if stat.S_ISDIR(status.st_mode):
        if path.count("/") + 1 >= DEPTH_MAX:
            raise _Unpackable(f"it lies more than {DEPTH_MAX} folders deep")
        return _Entry(path, _Kind.FOLDER)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(name, dir_fd=folder_fd)
        if not _link_stays_inside(path, target):
            raise _Unpackable(f"it is a link out of the folder, to {_shown(target)}")
        return _Entry(path, _Kind.LINK, target=target)
    raise _Unpackable(f"it is a {_special_kind(status.st_mode)}")


def _link_stays_inside(path: str, target: str) -> bool:
    """Whether a link at `path` cannot lead out of the tree, even through other links that pass this test.

    Every `..` must come first and there may be no more of them than folders above the link: then the climb
    ends in a real folder of the tree, and each step down meets a real entry or a link for which the same
    holds.
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    try:
        target.encode()
    except UnicodeEncodeError:
        return False
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    return ".." not in parts[climbs:] and climbs <= path.count("/")


def _special_kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "named pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


# Work folders


@dataclass(frozen=True, slots=True)
class _Rules:
    """One folder's ignore files; a name less `cut`, or after `put`, is as they see it."""

    patterns: tuple["RegexPattern", ...]
    cut: str = ""
    put: str = ""

    def verdict(self, name: str) -> bool | None:
        """True: left out; False: named as kept; None: not mentioned. A folder's name ends in `/`."""
        name = self.put + name.removeprefix(self.cut)
        return next((p.include for p in reversed(self.patterns) if _mentions(p, name)), None)


def _mentions(pattern: "RegexPattern", name: str) -> bool:
    """Whether a pattern means this very name.

    pathspec also lets `!src/` mention all below src/, which git does not; in its expressions the group `ps_d`
    is the slash after what the pattern itself matched. We walk from the top, so an ignored parent is never
    entered anyway.
    """
    if pattern.regex is None:
        return False
    if _MATCHED_FOLDER not in pattern.regex.groupindex:
        return pattern.regex.match(name.removesuffix("/")) is not None
    match = pattern.regex.match(name)
    return match is not None and match.end(_MATCHED_FOLDER) in (-1, len(name))


def _workdir_entries(root_fd: int, above: tuple[_Rules, ...]) -> list[_Entry]:
    """All entries to pack, sorted by name; raises `ArchiveError` at the first one that cannot travel."""
    found: list[_Entry] = []
    pending = [("", above)]
    while pending:
        base, outer = pending.pop()
        try:
            with _open_folder(root_fd, base) as folder_fd:
                names = os.listdir(folder_fd)
                rules = outer + _rules_in(folder_fd, names, base)
                entries = [
                    _workdir_entry(folder_fd, base, name, rules) for name in names if name != GIT_FOLDER
                ]
        except OSError as error:
            place = _shown(base) if base else "the work folder"
            raise ArchiveError(
                f"cannot read {place}: {error.strerror}. Make it readable, or name it in .perakignore."
            ) from error
        kept = [entry for entry in entries if entry is not None]
        found += kept
        pending += [(f"{entry.name}/", rules) for entry in kept if entry.kind is _Kind.FOLDER]
        if len(found) > WALK_ENTRIES_MAX:
            raise ArchiveError(
                f"the work folder has more than {WALK_ENTRIES_MAX:,} files. "
                "Name what the job does not need in .perakignore."
            )
    return sorted(found, key=lambda entry: entry.name)


def _workdir_entry(folder_fd: int, base: str, name: str, rules: tuple[_Rules, ...]) -> _Entry | None:
    """The entry, or None if it is ignored (asked first, so that an ignored socket disturbs nobody)."""
    is_folder = stat.S_ISDIR(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode)
    if _is_ignored(f"{base}{name}/" if is_folder else f"{base}{name}", rules):
        return None
    try:
        return _read_entry(folder_fd, base, name)
    except _Unpackable as reason:
        raise ArchiveError(
            f"cannot pack {_shown(base + name)}: {reason}. Remove it, or name it in .perakignore."
        ) from None


def _is_ignored(name: str, rules: tuple[_Rules, ...]) -> bool:
    """The deepest ignore file that mentions a name decides."""
    return next((verdict for rule in reversed(rules) if (verdict := rule.verdict(name)) is not None), False)


def _rules_in(folder_fd: int, names: Iterable[str], base: str) -> tuple[_Rules, ...]:
    lines: list[str] = []
    present = set(names)
    for name in IGNORE_FILES:
        if name in present:
            with os.fdopen(_open_regular(folder_fd, name), encoding="utf-8", errors="replace") as file:
                text = file.read(IGNORE_CHARACTERS_MAX + 1)
            if len(text) > IGNORE_CHARACTERS_MAX:
                raise ArchiveError(f"{_shown(base + name)} is too long to be a list of patterns. Shorten it.")
            lines += text.splitlines()
    return (_Rules(_compile(lines, f"in {_shown(base or 'the work folder')}"), cut=base),) if lines else ()


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
                    _compile(lines, f"in {_shown(str(folder))}"),
                    put=f"{root.relative_to(folder).as_posix()}/",
                )
            )
    return tuple(rules)


def _compile(lines: list[str], base: str) -> tuple["RegexPattern", ...]:
    """Raises `ArchiveError` for a pattern that git would not know either."""
    from pathspec import GitIgnoreSpec  # Imported here: `perak --help` should not pay for it.

    try:
        return tuple(GitIgnoreSpec.from_lines(lines).patterns)
    except ValueError as error:
        raise ArchiveError(f"a pattern {base} can't be read: {error}. Correct it.") from error


# Outputs


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
            *_compile(
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
            self._skipped.append(f"{_shown(name)}: {reason}")

    def report_skipped(self) -> tuple[str, ...]:
        hidden = self._skipped_count - len(self._skipped)
        return (*sorted(self._skipped), *((f"and {hidden:,} more",) if hidden else ()))


def _output_entries(root_fd: int, wanted: list[_OutputPattern], found: _Found) -> list[_Entry]:
    """The entries that any pattern matches, sorted by name, noting in `found` what matched and what was
    skipped.
    """
    entries: list[_Entry] = []
    walked = 0
    pending = [""]
    while pending:
        base = pending.pop()
        try:
            with _open_folder(root_fd, base) as folder_fd:
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
    entry: _Entry
    matched: bool
    enter: bool


def _output_entry(
    folder_fd: int, base: str, name: str, wanted: list[_OutputPattern], found: _Found
) -> _Visited | None:
    path = f"{base}{name}"
    matched_as_file = {pattern.text for pattern in wanted if pattern.matches(path)}
    try:
        entry = _read_entry(folder_fd, base, name)
    except _Unpackable as reason:
        if matched_as_file:
            found.skip(path, str(reason))
        return None
    except OSError as error:
        found.skip(path, error.strerror or str(error))
        return None
    if entry.kind is not _Kind.FOLDER:
        found.matched |= matched_as_file
        return _Visited(entry, bool(matched_as_file), enter=False)
    matched = {pattern.text for pattern in wanted if pattern.matches(f"{path}/")}
    found.matched |= matched
    return _Visited(entry, bool(matched), enter=any(pattern.may_match_below(path) for pattern in wanted))


# Writing


def _check_limits(
    entries: Sequence[_Entry], limit_bytes: int, limit_files: int, *, what: str, advice: str
) -> None:
    total_bytes = sum(entry.size_bytes for entry in entries)
    if total_bytes > limit_bytes:
        largest = heapq.nlargest(OFFENDERS_SHOWN, entries, key=lambda entry: entry.size_bytes)
        shown = ", ".join(f"{_shown(entry.name)} ({_human(entry.size_bytes)})" for entry in largest)
        raise ArchiveError(
            f"{what}: {_human(total_bytes)} is over the limit of {_human(limit_bytes)}. "
            f"Largest: {shown}. {advice}"
        )
    if len(entries) > limit_files:
        raise ArchiveError(
            f"{what}: {len(entries):,} entries are over the limit of {limit_files:,}. {advice}"
        )


def _write_archive(root_fd: int, entries: Sequence[_Entry], dest: BinaryIO | Path) -> Packed:
    if isinstance(dest, Path):
        return _write_to_path(dest, lambda file: _write_archive(root_fd, entries, file))
    sink = _HashingSink(dest)
    with (
        gzip.GzipFile(
            filename="", mode="wb", fileobj=sink, compresslevel=COMPRESSION_LEVEL, mtime=0
        ) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar,
    ):
        for entry in entries:
            _add(tar, root_fd, entry)
    return Packed(
        digest=f"sha256:{sink.sha256.hexdigest()}",
        size_bytes=sink.size_bytes,
        file_count=sum(entry.kind is not _Kind.FOLDER for entry in entries),
        raw_bytes=sum(entry.size_bytes for entry in entries),
    )


def _write_to_path(dest: Path, write: Callable[[BinaryIO], Packed]) -> Packed:
    """Write beside `dest` and rename, so that a half-written archive never has its name."""
    partial = _partial_beside(dest)
    try:
        with partial.open("xb") as file:
            packed = write(file)
        partial.replace(dest)
    finally:
        partial.unlink(missing_ok=True)
    return packed


def _add(tar: tarfile.TarFile, root_fd: int, entry: _Entry) -> None:
    info = tarfile.TarInfo(entry.name)
    match entry.kind:
        case _Kind.FOLDER:
            info.type, info.mode = tarfile.DIRTYPE, FOLDER_MODE
            tar.addfile(info)
        case _Kind.LINK:
            info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, entry.target
            tar.addfile(info)
        case _Kind.FILE:
            info.mode = EXECUTABLE_MODE if entry.executable else FILE_MODE
            info.size = entry.size_bytes
            base, _, name = entry.name.rpartition("/")
            try:
                with (
                    _open_folder(root_fd, base) as folder_fd,
                    os.fdopen(_open_regular(folder_fd, name), "rb") as file,
                ):
                    tar.addfile(info, file)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise ArchiveError(f"no room for the archive: {error.strerror}. Make room.") from error
                raise ArchiveError(
                    f"{_shown(entry.name)} changed while it was packed: {error.strerror or error}. Try again."
                ) from error


class _HashingSink:
    """A writable that passes bytes on, counting and hashing them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size_bytes += len(data)
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()


# Unpacking


def _unpack_and_rename(
    stream: BinaryIO, dest: Path, limit_bytes: int, limit_files: int, owner: tuple[int, int] | None
) -> None:
    partial = _partial_beside(dest)
    partial.mkdir(mode=0o700, parents=True)
    try:
        _unpack_into(stream, partial, limit_bytes, limit_files, owner)
        partial.chmod(FOLDER_MODE)
        if owner:
            os.chown(partial, *owner)
        partial.rename(dest)
    except OSError as error:
        raise ArchiveError(f"cannot unpack to {dest}: {error.strerror}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unpack_into(
    stream: BinaryIO, dest: Path, limit_bytes: int, limit_files: int, owner: tuple[int, int] | None
) -> None:
    source = _BoundedSource(stream, limit_bytes, limit_files)
    try:
        with (
            _closing_fd(os.open(dest, _FOLDER_FLAGS)) as root_fd,
            tarfile.open(
                fileobj=source, mode="r|", tarinfo=_BoundedTarInfo, encoding="utf-8", errors="strict"
            ) as tar,
        ):
            _Unpacker(root_fd, limit_bytes, limit_files, owner).unpack_all(tar)
        source.drain()
    except ArchiveError:
        raise
    except (
        tarfile.TarError,
        EOFError,
        zlib.error,
        gzip.BadGzipFile,
        UnicodeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise ArchiveError(f"the archive is damaged: {error}. Make and send it again.") from error
    except ValueError as error:
        raise ArchiveError(f"the archive is not a valid tar: {error}. Make and send it again.") from error
    except OSError as error:
        raise ArchiveError(f"cannot unpack to {dest}: {error.strerror or error}.") from error


class _BoundedSource(io.RawIOBase):
    """Decompresses, and stops before a small archive becomes a large one.

    Contents have their own exact limit; this one also bounds headers, padding and what follows the tar's end.
    """

    def __init__(self, stream: BinaryIO, limit_bytes: int, limit_files: int) -> None:
        self._zipped = gzip.GzipFile(fileobj=stream, mode="rb")
        self._left = limit_bytes + (limit_files + 16) * ENTRY_OVERHEAD_BYTES
        self._limit_bytes = limit_bytes

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "a bounded source is read in bounded pieces"
        data = self._zipped.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveError(_too_large(self._limit_bytes))
        return data

    def drain(self) -> None:
        """Read to the end, so that the compressed stream's own checksum is checked."""
        while self.read(CHUNK_BYTES):
            pass


class _BoundedTarInfo(tarfile.TarInfo):
    """A header checked before tarfile acts on its claims: it reads extended headers into memory whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0:
            raise ArchiveError(
                "the archive is damaged: an entry has a negative size. Make and send it again."
            )
        plain = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE)
        if info.type not in plain and info.size > HEADER_BYTES_MAX:
            raise ArchiveError(
                f"the archive has a header of {_human(info.size)}; {_human(HEADER_BYTES_MAX)} is the most."
            )
        return info


class _Unpacker:
    """Carries out one archive's entries below one folder, opened once and never left."""

    def __init__(
        self, root_fd: int, limit_bytes: int, limit_files: int, owner: tuple[int, int] | None
    ) -> None:
        self._root_fd = root_fd
        self._limit_bytes = limit_bytes
        self._left_bytes = limit_bytes
        self._limit_files = limit_files
        self._owner = owner
        self._named: set[str] = set()
        self._made_count = 0

    def unpack_all(self, tar: tarfile.TarFile) -> None:
        while (info := tar.next()) is not None:
            # tarfile keeps every header it has read; we need none of them again.
            tar.members.clear()  # type: ignore[attr-defined]
            name = _safe_name(info.name)
            if name is None:
                if info.isdir():
                    continue
                raise ArchiveError("the archive has a file without a name.")
            if name in self._named:
                raise ArchiveError(f"the archive has {_shown(name)} twice.")
            self._named.add(name)
            self._unpack_one(tar, info, name)

    def _unpack_one(self, tar: tarfile.TarFile, info: tarfile.TarInfo, name: str) -> None:
        base, _, leaf = name.rpartition("/")
        with self._folder(base) as folder_fd:
            if info.isdir():
                self._make_folder(folder_fd, leaf, name, may_exist=True)
            elif info.issym():
                self._make_link(folder_fd, leaf, name, info.linkname)
            elif info.isreg() and not info.issparse():
                self._make_file(tar, info, folder_fd, leaf, name)
            else:
                raise ArchiveError(
                    f"the archive has {_shown(name)}, which is neither a file, a folder nor a symbolic link."
                )

    @contextmanager
    def _folder(self, base: str) -> Iterator[int]:
        """The folder `base`, made if it is not there, reached without following any link."""
        folder_fd = os.dup(self._root_fd)
        try:
            path = ""
            for part in base.split("/") if base else ():
                path = f"{path}/{part}" if path else part
                if path not in self._named:
                    self._make_folder(folder_fd, part, path, may_exist=True)
                try:
                    inner_fd = os.open(part, _FOLDER_FLAGS, dir_fd=folder_fd)
                except OSError as error:
                    raise ArchiveError(
                        f"the archive puts {_shown(base)} below something not a folder."
                    ) from error
                os.close(folder_fd)
                folder_fd = inner_fd
            yield folder_fd
        finally:
            os.close(folder_fd)

    def _make_folder(self, folder_fd: int, leaf: str, name: str, *, may_exist: bool) -> None:
        try:
            os.mkdir(leaf, mode=0o700, dir_fd=folder_fd)
        except FileExistsError:
            status = os.stat(leaf, dir_fd=folder_fd, follow_symlinks=False)
            if may_exist and stat.S_ISDIR(status.st_mode):
                return
            raise ArchiveError(f"the archive has {_shown(name)} twice.") from None
        self._count_one()
        with _closing_fd(os.open(leaf, _FOLDER_FLAGS, dir_fd=folder_fd)) as made_fd:
            os.fchmod(made_fd, FOLDER_MODE)
            if self._owner:
                os.fchown(made_fd, *self._owner)

    def _make_link(self, folder_fd: int, leaf: str, name: str, target: str) -> None:
        if not _link_stays_inside(name, target):
            raise ArchiveError(
                f"the archive has a link {_shown(name)} out of its folder, to {_shown(target)}."
            )
        self._count_one()
        try:
            os.symlink(target, leaf, dir_fd=folder_fd)
        except FileExistsError:
            raise ArchiveError(f"the archive has {_shown(name)} twice.") from None
        if self._owner:
            os.chown(leaf, *self._owner, dir_fd=folder_fd, follow_symlinks=False)

    def _make_file(
        self, tar: tarfile.TarFile, info: tarfile.TarInfo, folder_fd: int, leaf: str, name: str
    ) -> None:
        self._count_one()
        self._left_bytes -= info.size
        if info.size < 0 or self._left_bytes < 0:
            raise ArchiveError(_too_large(self._limit_bytes))
        contents = tar.extractfile(info)
        assert contents is not None, "a regular file has contents"
        try:
            made_fd = os.open(leaf, _CREATE_FLAGS, 0o600, dir_fd=folder_fd)
        except FileExistsError:
            raise ArchiveError(f"the archive has {_shown(name)} twice.") from None
        with os.fdopen(made_fd, "wb") as made:
            shutil.copyfileobj(contents, made, CHUNK_BYTES)
            os.fchmod(made_fd, EXECUTABLE_MODE if info.mode & stat.S_IXUSR else FILE_MODE)
            if self._owner:
                os.fchown(made_fd, *self._owner)

    def _count_one(self) -> None:
        self._made_count += 1
        if self._made_count > self._limit_files:
            raise ArchiveError(
                f"the archive has more than {self._limit_files:,} entries, which is the limit."
            )


def _safe_name(name: str) -> str | None:
    """The name without empty and `.` parts; None for the root itself. Raises `ArchiveError` for one that
    leaves it.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise ArchiveError(f"the archive has {_shown(name)}, a name that leads out of its folder.")
    if len(parts) > DEPTH_MAX:
        raise ArchiveError(f"the archive has {_shown(name)}, more than {DEPTH_MAX} folders deep.")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ArchiveError(f"the archive has {_shown(name)}, a name that is not UTF-8.") from None
    return "/".join(parts) or None


def _too_large(limit_bytes: int) -> str:
    return f"the archive unpacks to more than {_human(limit_bytes)}, which is the limit."


def _empty(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child, ignore_errors=True)
        else:
            child.unlink(missing_ok=True)


# Opening without following links


@contextmanager
def _open_folder(root_fd: int, base: str) -> Iterator[int]:
    """Open the folder `base` below `root_fd` one part at a time; a link anywhere on the way is an OSError."""
    folder_fd = os.dup(root_fd)
    try:
        for part in base.split("/"):
            if part:
                inner_fd = os.open(part, _FOLDER_FLAGS, dir_fd=folder_fd)
                os.close(folder_fd)
                folder_fd = inner_fd
        yield folder_fd
    finally:
        os.close(folder_fd)


def _open_regular(folder_fd: int, name: str) -> int:
    """A descriptor to read a regular file; OSError for a link or anything else, even one just put in its
    place.
    """
    if not stat.S_ISREG(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode):
        raise OSError(errno.EINVAL, "it is no longer a file")
    file_fd = os.open(name, _READ_FLAGS, dir_fd=folder_fd)
    if not stat.S_ISREG(os.fstat(file_fd).st_mode):
        os.close(file_fd)
        raise OSError(errno.EINVAL, "it is no longer a file")
    return file_fd


@contextmanager
def _closing_fd(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _partial_beside(dest: Path) -> Path:
    return dest.with_name(f".{dest.name}.{secrets.token_hex(6)}.partial")


def _shown(name: str) -> str:
    """A name that a stranger chose, safe to print in a terminal or a log."""
    return name if name.isprintable() else ascii(name)


def _human(size_bytes: int) -> str:
    if size_bytes < 1024:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1024 or unit == "GiB":
            break
    return f"{value:.1f} {unit}"
