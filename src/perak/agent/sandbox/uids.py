"""One user id per concurrent run, so that two runs never share an owner.

The slots are machine-wide (two agents on one machine must not share a uid either): a taken slot is a
symbolic link, made atomically, that points to the folder of the run that has it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path

from perak.agent.sandbox import process

UID_BASE = 60_600
"""Between systemd-homed's range, which ends at 60513, and its dynamic users, which begin at 61184
(systemd, UIDS-GIDS.md: 60578 to 61183 are unused)."""

UID_SLOTS = 96
"""Concurrent runs on one machine, at most."""

SLOTS_FOLDER = Path("/run/perak/uids")


def take(run_folder: Path, *, slots: Path = SLOTS_FOLDER) -> int:
    """A uid that no live run has; raises RuntimeError when all are taken."""
    slots.mkdir(parents=True, exist_ok=True)
    uid = _first_free(run_folder, slots)
    if uid is None and _give_back_abandoned(slots):
        uid = _first_free(run_folder, slots)
    if uid is None:
        raise RuntimeError(f"all {UID_SLOTS} user ids for runs are taken; see {slots}")
    return uid


def give_back(run_folder: Path, *, slots: Path = SLOTS_FOLDER) -> None:
    """Free the slot of that run, if it has one."""
    for link, target in _links(slots):
        if target == str(run_folder):
            link.unlink(missing_ok=True)


def give_back_stale(runs: Path, *, slots: Path = SLOTS_FOLDER) -> None:
    """Free the slots of runs under `runs` whose folder is gone (their agent was killed meanwhile)."""
    for link, target in _links(slots):
        if target.startswith(f"{runs}/") and not os.path.lexists(target):
            link.unlink(missing_ok=True)


def _first_free(run_folder: Path, slots: Path) -> int | None:
    for uid in range(UID_BASE, UID_BASE + UID_SLOTS):
        if _belongs_to_somebody(uid):
            continue
        with contextlib.suppress(FileExistsError):
            os.symlink(run_folder, slots / str(uid))
            return uid
    return None


def _give_back_abandoned(slots: Path) -> int:
    """How many slots were freed of agents that are gone with their whole folder, and so never come back."""
    freed = 0
    for link, target in _links(slots):
        agent = Path(target).parent.parent
        if not os.path.lexists(agent) and not process.owned_by(int(link.name)):
            link.unlink(missing_ok=True)
            freed += 1
    return freed


def is_ours(uid: int) -> bool:
    """Whether `uid` is one that only runs have."""
    return UID_BASE <= uid < UID_BASE + UID_SLOTS and not _belongs_to_somebody(uid)


def _links(slots: Path) -> list[tuple[Path, str]]:
    links: list[tuple[Path, str]] = []
    with contextlib.suppress(FileNotFoundError):
        for link in slots.iterdir():
            with contextlib.suppress(OSError):
                links.append((link, os.readlink(link)))
    return links


def _belongs_to_somebody(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
