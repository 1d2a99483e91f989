"""The store: what is kept, for how long, and what is never removed."""

import os
import stat
from pathlib import Path

import pytest

from perak.agent.environments.errors import NotInstalled
from perak.agent.environments.store import (
    EVICTION_GRACE_SECONDS,
    RESOLUTION_SECONDS_MAX,
    Resolution,
    Store,
    digest_of,
    seal,
)

PYTHON = Path("/usr/bin/python3.11")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def add(store: Store, name: str, *, size_bytes: int, used_at: float) -> str:
    key = digest_of(name)
    with store.draft() as draft:
        folder = draft / "environment"
        folder.mkdir()
        (folder / "data").write_bytes(b"x" * size_bytes)
        store.adopt(folder, key, interpreter=PYTHON, requirements="")
    os.utime(store.root / f"{key}.json", (used_at, used_at))
    return key


def test_a_resolution_is_kept_for_a_day(tmp_path: Path) -> None:
    clock = Clock()
    store = Store(tmp_path, now=clock)
    assert store.resolution("r") is None
    store.keep_resolution("r", Resolution("k", "six==1"))
    clock.now += RESOLUTION_SECONDS_MAX - 1
    assert Store(tmp_path, now=clock).resolution("r") == Resolution("k", "six==1")
    clock.now += 1
    assert store.resolution("r") is None


def test_a_damaged_resolution_is_no_resolution(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "resolved" / "r.json").write_text("{")
    assert store.resolution("r") is None


def test_the_longest_unused_go_first_but_never_those_in_use_or_just_used(tmp_path: Path) -> None:
    clock = Clock()
    store = Store(tmp_path, total_bytes_max=10_000, now=clock)
    long_ago = clock.now - EVICTION_GRACE_SECONDS
    oldest, older, old = (
        add(store, name, size_bytes=8192, used_at=long_ago - age)
        for name, age in zip("abc", (9, 8, 7), strict=True)
    )
    fresh = add(store, "d", size_bytes=8192, used_at=clock.now)

    assert store.evict({oldest}) == [older, old]
    assert [store.has(key) for key in (oldest, older, old, fresh)] == [True, False, False, True]
    assert not store.path(older).exists()


def test_drafts_are_gone_after_their_block_and_after_a_crash(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "drafts" / "dead" / "sealed").mkdir(parents=True)
    (tmp_path / "drafts" / "dead" / "sealed").chmod(0o555)
    with store.draft() as draft:
        Store(tmp_path)
        assert draft.is_dir(), "a living draft is left alone"
        assert not (tmp_path / "drafts" / "dead").exists()
    assert list((tmp_path / "drafts").iterdir()) == []
    assert list((tmp_path / "locks").glob("draft-*")) == []


def test_an_unfinished_environment_does_not_count_and_is_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = digest_of("a")
    (tmp_path / key / "half").mkdir(parents=True)
    assert not store.has(key)
    add(store, "a", size_bytes=1, used_at=1)
    assert store.has(key)
    assert not (tmp_path / key / "half").exists()


def test_sealed_means_read_only_without_setuid(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(PYTHON)
    (tmp_path / "bin" / "python3").symlink_to("python")
    (tmp_path / "bin" / "tool").write_text("#!")
    (tmp_path / "bin" / "tool").chmod(0o6777)
    (tmp_path / "data").write_bytes(b"x" * 5000)
    assert seal(tmp_path, PYTHON) >= 5000
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "bin", tmp_path / "bin" / "tool", tmp_path / "data")
    }
    assert modes == {"bin": 0o555, "tool": 0o555, "data": 0o444}


@pytest.mark.parametrize("kind", ["link", "climb", "hard link", "pipe"])
def test_what_points_elsewhere_is_not_sealed(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "environment"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    match kind:
        case "link":
            (folder / "x").symlink_to("/etc/shadow")
        case "climb":
            (folder / "x").symlink_to("..")
        case "hard link":
            os.link(tmp_path / "secret", folder / "x")
        case "pipe":
            os.mkfifo(folder / "x")
    mode = (tmp_path / "secret").stat().st_mode
    with pytest.raises(NotInstalled, match="refused"):
        seal(folder, PYTHON)
    assert (tmp_path / "secret").stat().st_mode == mode
