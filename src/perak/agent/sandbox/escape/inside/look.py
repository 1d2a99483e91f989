"""What the attacks look at the sandbox with."""

from __future__ import annotations

import os
import socket
from typing import Any

from perak.agent.sandbox.escape.inside.calls import NotRun


def some(*outcomes: str | None) -> list[str]:
    return [each for each in outcomes if each is not None]


def exists(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def is_same(here: os.stat_result, identity: list[int]) -> bool:
    """By device and inode number; a kernel of our own gives numbers of its own, and passes times on."""
    if [here.st_dev, here.st_ino] == identity[:2]:
        return True
    return [here.st_mtime_ns, here.st_ctime_ns] == identity[2:]


def pids() -> list[int]:
    return [int(each) for each in os.listdir("/proc") if each.isdigit()]


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(65536)
    except OSError:
        return b""


def status_field(name: str) -> str:
    for line in read("/proc/self/status").decode().splitlines():
        if line.startswith(name + ":"):
            return line.split(":", 1)[1].strip()
    raise NotRun(f"/proc/self/status does not name {name}")


def connects(family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as each:
        each.settimeout(0.5)
        try:
            each.connect(address)
        except (OSError, OverflowError):
            return False
        return True
