"""Archives: a tree has one digest, what was packed comes back, and no archive leaves its folder."""

import errno
import gzip
import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from perak.wire.archive import (
    ArchiveError,
    NothingPacked,
    Packed,
    outputs,
    pack_outputs,
    pack_workdir,
    unpack,
)
from perak.wire.archive.tree import check_limits

MIB = 1024 * 1024

Tree = dict[str, bytes]


def write_tree(root: Path, tree: Tree) -> Path:
    for name, contents in tree.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(contents)
    return root


def read_tree(root: Path) -> Tree:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def pack_bytes(root: Path) -> bytes:
    sink = io.BytesIO()
    pack_workdir(root, sink)
    return sink.getvalue()


def names_in(packed: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        return tar.getnames()


def make_archive(add: Callable[[tarfile.TarFile], None]) -> io.BytesIO:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        add(tar)
    sink.seek(0)
    return sink


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", size: int = 0, mode: int = 0o644
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, size, mode
    return info


def archive_of(*entries: tarfile.TarInfo) -> io.BytesIO:
    def add_all(tar: tarfile.TarFile) -> None:
        for info in entries:
            tar.addfile(info, io.BytesIO(b"\0" * info.size))

    return make_archive(add_all)


def unpack_small(src: io.BytesIO, dest: Path, *, limit_bytes: int = MIB, limit_files: int = 100) -> None:
    unpack(src, dest, limit_bytes=limit_bytes, limit_files=limit_files)


@contextmanager
def scratch() -> Iterator[Path]:
    with TemporaryDirectory(prefix="perak-archive-") as folder:
        yield Path(folder)


# Round trip and determinism

name_parts = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cc"]), min_size=1, max_size=40
).filter(
    lambda part: part not in (".", "..", ".git", ".gitignore", ".perakignore") and len(part.encode()) < 120
)
trees = st.dictionaries(
    st.lists(name_parts, min_size=1, max_size=3).map("/".join), st.binary(max_size=2000), max_size=8
).filter(lambda tree: not any(other.startswith(f"{name}/") for name in tree for other in tree))


@settings(max_examples=40, deadline=None)
@given(tree=trees)
def test_what_was_packed_comes_back_and_packs_to_the_same_digest(tree: Tree) -> None:
    with scratch() as folder:
        root = write_tree(folder / "a", tree)
        root.mkdir(exist_ok=True)
        packed = pack_workdir(root, folder / "a.tgz")
        unpack(folder / "a.tgz", folder / "b", limit_bytes=MIB, limit_files=100)

        assert read_tree(folder / "b") == tree
        assert pack_workdir(folder / "b", folder / "b.tgz").digest == packed.digest
        assert packed.size_bytes == (folder / "a.tgz").stat().st_size
        assert packed.raw_bytes == sum(map(len, tree.values()))


def test_times_owners_umask_and_the_order_of_writing_do_not_change_the_digest(tmp_path: Path) -> None:
    one = write_tree(tmp_path / "one", {"a.py": b"1", "d/b": b"2"})
    two = write_tree(tmp_path / "two", {"d/b": b"2", "a.py": b"1"})
    (two / "a.py").chmod(0o600)
    os.utime(two / "a.py", (1, 1))
    assert pack_bytes(one) == pack_bytes(two)

    (two / "a.py").chmod(0o700)
    assert pack_bytes(one) != pack_bytes(two), "what may be executed is part of the tree"


def test_modes_links_and_empty_folders_survive(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "a", {"run.sh": b"#!/bin/sh", "data/x": b"x"})
    (root / "run.sh").chmod(0o4777)
    (root / "empty").mkdir()
    (root / "data" / "latest").symlink_to("../run.sh")
    unpack_small(io.BytesIO(pack_bytes(root)), tmp_path / "b")

    assert stat.S_IMODE((tmp_path / "b" / "run.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "b" / "data" / "x").stat().st_mode) == 0o644
    assert (tmp_path / "b" / "empty").is_dir()
    assert os.readlink(tmp_path / "b" / "data" / "latest") == "../run.sh"


# Work folders


def test_ignore_files_nest_negate_and_perakignore_has_the_last_word(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        {
            ".git/config": b"",
            ".gitignore": b"*.log\nbuild/\n/data/*\n!/data/keep.csv\n",
            ".perakignore": b"!needed.log\nsecret.txt\n",
            "a.log": b"",
            "needed.log": b"",
            "secret.txt": b"",
            "build/out.o": b"",
            "data/big.csv": b"",
            "data/keep.csv": b"",
            "src/.gitignore": b"!important.log\n",
            "src/important.log": b"",
            "src/other.log": b"",
            "src/.git": b"gitdir: elsewhere",
        },
    )
    assert [name for name in names_in(pack_bytes(root)) if "ignore" not in name] == [
        "data",
        "data/keep.csv",
        "needed.log",
        "src",
        "src/important.log",
    ]


def test_a_folder_inside_a_repository_obeys_the_repository(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            ".git/HEAD": b"",
            ".gitignore": b"*.ckpt\n/exp/tmp\n",
            "exp/m.ckpt": b"",
            "exp/tmp/x": b"",
            "exp/a": b"",
        },
    )
    assert names_in(pack_bytes(tmp_path / "exp")) == ["a"]


ignore_lines = st.lists(
    st.sampled_from(
        [
            "a",
            "b/",
            "/a",
            "a/*",
            "!a/b",
            "*.x",
            "!c.x",
            "**/b",
            "a/**",
            "!a/",
            "# a",
            "",
            "\\!a",
            "b*",
            "**",
            "a/**",
            "!b/",
            "a/**/c",
            "!/a/b",
        ]
    ),
    max_size=4,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(top=ignore_lines, nested=ignore_lines)
@example(top=["a/*", "!a/b"], nested=[])
@example(top=["a/**", "!a/b"], nested=[])
@example(top=[], nested=["b/", "!a/"])
def test_ignoring_agrees_with_git(top: list[str], nested: list[str]) -> None:
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    with scratch() as root:
        tree = dict.fromkeys(
            ("a/b", "a/c.x", "a/a/b/c", "b/a", "b/c.x", "c.x", "d.x", "!a", "ab/b", "bb"), b""
        )
        write_tree(
            root, tree | {".gitignore": "\n".join(top).encode(), "a/.gitignore": "\n".join(nested).encode()}
        )
        subprocess.run(["git", "init", "-q", root], check=True)
        listed = subprocess.run(
            ["git", "-C", root, "ls-files", "-z", "--others", "--exclude-standard"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(pack_bytes(root)), mode="r:gz") as tar:
            assert sorted(info.name for info in tar if info.isreg()) == sorted(
                filter(None, listed.split("\0"))
            )


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "sub/../../outside", ".."])
def test_a_link_out_of_the_work_folder_is_named(tmp_path: Path, target: str) -> None:
    (tmp_path / "evil").symlink_to(target)
    with pytest.raises(ArchiveError, match=r"evil.*link out of the folder"):
        pack_bytes(tmp_path)


def test_special_files_are_refused_unless_ignored(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.sock"))
        with pytest.raises(ArchiveError, match=r"s\.sock: it is a socket"):
            pack_bytes(tmp_path)
        (tmp_path / ".perakignore").write_text("*.sock")
        assert names_in(pack_bytes(tmp_path)) == [".perakignore"]


def test_a_large_work_folder_names_its_largest_files_and_writes_nothing(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "w", {"small": b"1", "data/large.bin": b"0" * 3000, "medium": b"0" * 500})
    with pytest.raises(
        ArchiveError, match=r"3\.4 KiB is over the limit of 1\.0 KiB.*data/large\.bin \(2\.9 KiB\), medium"
    ):
        pack_workdir(root, tmp_path / "w.tgz", limit_bytes=1024)
    with pytest.raises(ArchiveError, match="4 entries are over the limit of 2"):
        pack_workdir(root, tmp_path / "w.tgz", limit_files=2)
    assert not list(tmp_path.glob("*.tgz*"))


def test_a_missing_work_folder_is_an_error_for_the_user(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="Name a folder that exists"):
        pack_workdir(tmp_path / "nowhere", io.BytesIO())


def test_an_ignore_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").symlink_to("elsewhere")
    with pytest.raises(ArchiveError, match="cannot read the work folder"):
        pack_bytes(tmp_path)
    (tmp_path / ".gitignore").unlink()
    (tmp_path / ".gitignore").write_text("!\n")
    with pytest.raises(ArchiveError, match="can't be read"):
        pack_bytes(tmp_path)
    (tmp_path / ".gitignore").write_text("x" * 2_000_000)
    with pytest.raises(ArchiveError, match=r"\.gitignore is too long"):
        pack_bytes(tmp_path)


# Outputs


def test_outputs_take_what_the_patterns_name_and_report_the_rest(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        {
            "out/a": b"1",
            "out/deep/b": b"22",
            "model.joblib": b"m",
            "sub/model.joblib": b"",
            "logs/x.txt": b"",
            "logs/y.bin": b"",
        },
    )
    sink = io.BytesIO()
    packed = pack_outputs(root, ["out/", "./model.joblib", "logs/*.txt", "absent"], sink)
    assert isinstance(packed, Packed)
    assert names_in(sink.getvalue()) == [
        "logs/x.txt",
        "model.joblib",
        "out",
        "out/a",
        "out/deep",
        "out/deep/b",
    ]
    assert (packed.file_count, packed.raw_bytes, packed.missing) == (4, 4, ("absent",))


def test_no_outputs_is_none_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    packed = pack_outputs(tmp_path / "w", ["out/"], tmp_path / "out.tgz")
    assert packed == NothingPacked(missing=("out/",), skipped=())
    assert not (tmp_path / "out.tgz").exists()


@pytest.mark.parametrize("pattern", ["/etc/passwd", "../x", "a/../../x", "!a", "a\nb"])
def test_a_pattern_cannot_leave_the_folder(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ArchiveError, match="not a path inside"):
        pack_outputs(tmp_path, [pattern], io.BytesIO())


@settings(max_examples=60, deadline=None)
@given(patterns=st.lists(st.text("ab/*?[]!#\\ .-", max_size=6), max_size=3))
def test_any_pattern_is_refused_or_finds_only_what_lies_inside(patterns: list[str]) -> None:
    with scratch() as folder:
        root = write_tree(folder / "w", {"a/b": b"", "b": b"", "a b/[a": b"", "#a": b""})
        (root / "up").symlink_to("..")
        sink = io.BytesIO()
        try:
            packed = pack_outputs(root, patterns, sink)
        except ArchiveError:
            return
        assert isinstance(packed, NothingPacked) == (sink.getvalue() == b"")
        if isinstance(packed, Packed):
            assert set(names_in(sink.getvalue())) <= {"a", "a/b", "b", "a b", "a b/[a", "#a"}


def test_a_hostile_folder_gives_nothing_away(tmp_path: Path) -> None:
    secret = write_tree(tmp_path / "host", {"shadow": b"secret"})
    out = write_tree(tmp_path / "w", {"out/fine": b"ok"}) / "out"
    (out / "absolute").symlink_to(secret / "shadow")
    (out / "folder").symlink_to(secret)
    (out / "climb").symlink_to("../../host/shadow")
    (out / "latest").symlink_to("fine")
    os.mkfifo(out / "pipe")
    (out / os.fsdecode(b"bad\xff")).write_bytes(b"")
    (out / "tty\x1b[2J").symlink_to("/")
    sink = io.BytesIO()
    packed = pack_outputs(tmp_path / "w", ["out/"], sink)

    assert isinstance(packed, Packed)
    assert names_in(sink.getvalue()) == ["out", "out/fine", "out/latest"]
    assert b"secret" not in gzip.decompress(sink.getvalue())
    assert len(packed.skipped) == 6
    assert all(line.isprintable() for line in packed.skipped)
    assert any("out/pipe: it is a named pipe" in line for line in packed.skipped)


def test_an_output_root_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    write_tree(tmp_path / "host", {"shadow": b"secret"})
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "out").symlink_to(tmp_path / "host")
    assert isinstance(pack_outputs(tmp_path / "w", ["out/"], io.BytesIO()), NothingPacked)
    assert isinstance(pack_outputs(tmp_path / "w", ["out/shadow"], io.BytesIO()), NothingPacked)


def test_where_nothing_can_be_taken_the_reasons_are_told(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "pipe")
    packed = pack_outputs(tmp_path, ["out/pipe"], tmp_path / "out.tgz")
    assert isinstance(packed, NothingPacked)
    assert packed.skipped == ("out/pipe: it is a named pipe",)
    assert not (tmp_path / "out.tgz").exists()


@pytest.mark.parametrize("swap_folder", [True, False])
def test_a_link_swapped_in_between_walk_and_read_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap_folder: bool
) -> None:
    write_tree(tmp_path / "host", {"x": b"secret"})
    root = write_tree(tmp_path / "w", {"out/d/x": b"public"})
    target = root / "out" / "d" if swap_folder else root / "out" / "d" / "x"

    def swap_then_check(*args: object, **kwargs: object) -> None:
        target.rename(tmp_path / "moved")
        target.symlink_to(tmp_path / "host" if swap_folder else tmp_path / "host" / "x")
        check_limits(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(outputs, "check_limits", swap_then_check)
    with pytest.raises(ArchiveError, match="changed while it was packed"):
        pack_outputs(root, ["out/"], tmp_path / "o.tgz")
    assert not list(tmp_path.glob("*.tgz*"))


def test_outputs_have_limits(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"out/a": b"", "out/b": b""})
    with (root / "out" / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ArchiveError, match=r"the outputs: 1024\.0 GiB is over the limit.*out/sparse"):
        pack_outputs(root, ["out/"], io.BytesIO())
    with pytest.raises(ArchiveError, match="3 entries are over the limit of 2"):
        pack_outputs(root, ["out/*"], io.BytesIO(), limit_bytes=1 << 50, limit_files=2)


def test_only_folders_that_may_match_are_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path, {f"cache/{index}": b"" for index in range(50)} | {"out/a": b""})
    monkeypatch.setattr(outputs, "WALK_ENTRIES_MAX", 10)
    assert isinstance(pack_outputs(root, ["out/"], io.BytesIO()), Packed)
    with pytest.raises(ArchiveError, match="more than 10 entries"):
        pack_outputs(root, ["**/a"], io.BytesIO())


# Hostile archives


@pytest.mark.parametrize(
    "entries",
    [
        [entry("/etc/cron.d/x")],
        [entry("../x")],
        [entry("a/../../x")],
        [entry("link", tarfile.SYMTYPE, link="/etc")],
        [entry("link", tarfile.SYMTYPE, link="..")],
        [entry("a/link", tarfile.SYMTYPE, link="../../x")],
        # Each link alone stays inside by its spelling; through the first, the second would not.
        [
            entry("a/b/up", tarfile.SYMTYPE, link="../.."),
            entry("out", tarfile.SYMTYPE, link="a/b/up/../../x"),
        ],
        [entry("d", tarfile.SYMTYPE, link="e"), entry("d/x")],
        [entry("e", tarfile.DIRTYPE), entry("d", tarfile.SYMTYPE, link="e"), entry("d/x")],
        [entry("f"), entry("f/x")],
        [entry("hard", tarfile.LNKTYPE, link="/etc/passwd")],
        [entry("f"), entry("hard", tarfile.LNKTYPE, link="f")],
        [entry("null", tarfile.CHRTYPE)],
        [entry("disk", tarfile.BLKTYPE)],
        [entry("pipe", tarfile.FIFOTYPE)],
        [entry("twice"), entry("twice")],
        [entry("twice"), entry("./twice")],
        [entry("d", tarfile.DIRTYPE), entry("d")],
        [entry("d", tarfile.SYMTYPE, link="e"), entry("d", tarfile.DIRTYPE)],
        [entry(".", tarfile.REGTYPE)],
        [entry("bad\udcff")],
        [entry("/".join("d" * 100))],
        [entry("x" * 300)],
    ],
    ids=lambda entries: " then ".join(ascii(info.name[:20]) for info in entries),
)
def test_hostile_archives_are_refused_and_leave_nothing(
    tmp_path: Path, entries: list[tarfile.TarInfo]
) -> None:
    with pytest.raises(ArchiveError):
        unpack_small(archive_of(*entries), tmp_path / "in" / "dest")
    assert read_tree(tmp_path) == {}
    assert not (tmp_path / "in" / "dest").exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(ArchiveError):
        unpack_small(archive_of(*entries), tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


hostile_parts = st.sampled_from(["..", ".", "", "a", "b", "link", "/", "\x1b", "é"])
hostile_entries = st.builds(
    entry,
    st.lists(hostile_parts, min_size=1, max_size=5).map("/".join),
    st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]),
    link=st.lists(hostile_parts, max_size=5).map("/".join),
    size=st.integers(0, 600),
    mode=st.integers(0, 0o7777),
)


def leads_in_a_circle(path: Path) -> bool:
    """The kernel resolves such a link to nothing; what `os.path.realpath` says of it means nothing."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


@settings(max_examples=150, deadline=None)
@given(entries=st.lists(hostile_entries, max_size=6))
def test_whatever_is_unpacked_lies_inside_and_resolves_inside(entries: list[tarfile.TarInfo]) -> None:
    with scratch() as folder:
        dest = folder / "dest"
        try:
            unpack_small(archive_of(*entries), dest)
        except ArchiveError:
            assert list(folder.iterdir()) == []
            return
        assert list(folder.iterdir()) == [dest]
        for path in dest.rglob("*"):
            status = path.lstat()
            assert (
                stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)
            )
            if stat.S_ISLNK(status.st_mode) and not leads_in_a_circle(path):
                real = Path(os.path.realpath(path))
                assert real == dest or dest in real.parents
            elif not stat.S_ISLNK(status.st_mode):
                assert status.st_mode & 0o7022 == 0
                assert status.st_nlink == 1 or path.is_dir()


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255), inner=st.booleans())
def test_damage_is_an_archive_error_or_harmless(position: int, value: int, inner: bool) -> None:
    good = archive_of(
        entry("a/b", size=700), entry("ü" * 90), entry("l", tarfile.SYMTYPE, link="a")
    ).getvalue()
    raw = bytearray(gzip.decompress(good) if inner else good)
    raw[position % len(raw)] = value
    with scratch() as folder:
        try:
            unpack_small(io.BytesIO(gzip.compress(bytes(raw), 1) if inner else bytes(raw)), folder / "dest")
        except ArchiveError:
            assert list(folder.iterdir()) == []


def test_bombs_stop_at_the_limit(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"unpacks to more than 1\.0 MiB"):
        unpack_small(archive_of(entry("a", size=600_000), entry("b", size=600_000)), tmp_path / "size")
    with pytest.raises(ArchiveError, match="more than 100 entries"):
        unpack_small(archive_of(*(entry(f"f{index}") for index in range(101))), tmp_path / "count")
    with pytest.raises(ArchiveError, match="more than 100 entries"):
        unpack_small(
            archive_of(*(entry(f"d{index}/" * 6 + "f") for index in range(40))), tmp_path / "folders"
        )
    trailing = gzip.compress(b"\0" * 1024) + gzip.compress(b"\0" * (8 * MIB))
    with pytest.raises(ArchiveError, match="unpacks to more than"):
        unpack_small(io.BytesIO(trailing), tmp_path / "trailing")
    long_name = make_archive(lambda tar: tar.addfile(entry("n" * 300_000)))
    with pytest.raises(ArchiveError, match="has a header of"):
        unpack_small(long_name, tmp_path / "header")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [b"", b"not gzip at all", gzip.compress(b"not a tar" * 100, mtime=0)],
    ids=["empty", "text", "gzip"],
)
def test_what_is_no_archive_is_said_to_be_damaged(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ArchiveError, match="the archive is"):
        unpack_small(io.BytesIO(data), tmp_path / "dest")


def test_a_cut_archive_is_refused_whole(tmp_path: Path) -> None:
    whole = pack_bytes(write_tree(tmp_path / "w", {"a": os.urandom(4000), "b": os.urandom(4000)}))
    with pytest.raises(ArchiveError):
        unpack_small(io.BytesIO(whole[:-1000]), tmp_path / "dest")
    assert not (tmp_path / "dest").exists()


def test_a_folder_with_contents_is_left_alone(tmp_path: Path) -> None:
    write_tree(tmp_path / "dest", {"mine": b"1"})
    with pytest.raises(ArchiveError, match="not empty"):
        unpack_small(archive_of(entry("x")), tmp_path / "dest")
    (tmp_path / "link").symlink_to(tmp_path / "dest")
    with pytest.raises(ArchiveError, match="not a folder"):
        unpack_small(archive_of(entry("x")), tmp_path / "link")
    assert read_tree(tmp_path / "dest") == {"mine": b"1"}


def test_everything_made_belongs_to_the_owner(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    source = archive_of(entry("a/b/file"), entry("link", tarfile.SYMTYPE, link="a"))
    unpack(source, tmp_path / "dest", limit_bytes=MIB, limit_files=10, owner=(12345, 12346))
    for path in [tmp_path / "dest", *(tmp_path / "dest").rglob("*")]:
        assert (path.lstat().st_uid, path.lstat().st_gid) == (12345, 12346)
