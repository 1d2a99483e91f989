"""Starts `perak.agent.images.unpacker`, the process that touches what strangers packed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from perak.agent.fetch import wanted
from perak.agent.images.trees import Refused

SECONDS_MAX = 1800.0
"""20 GiB at a slow disk's 20 MB/s."""
LAST_WORDS_CHARACTERS = 300
WANTED_SECONDS = 0.5
"""How often it is asked whether anybody still waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one image, or one archive of data."""

    bytes: int
    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacker:
    """`uid`: who unpacks, None for the agent's own user, which may not be root then."""

    uid: int | None
    limits: Limits

    def __post_init__(self) -> None:
        assert self.uid is not None or os.geteuid() != 0, "nothing is unpacked as root"

    def unpack(
        self, packed: Path, target: Path, *, diff_id: str | None, plain: bool = False
    ) -> dict[str, Any]:
        """Unpack into the empty folder `target`. Raises Refused; `target` is the caller's to clear then."""
        with packed.open("rb") as stream:
            return self._run(
                {
                    "action": "unpack",
                    "root": str(target.parent),
                    "target": target.name,
                    "diff_id": diff_id,
                    "plain": plain,
                    "packed_bytes": packed.stat().st_size,
                },
                stream,
            )

    def merge(
        self, store: Path, layers: list[str], target: Path, *, user: str, working_dir: str
    ) -> dict[str, Any]:
        """Make one root of layers in `store`/layers in `target`, below `store`. Raises Refused."""
        return self._run(
            {
                "action": "merge",
                "root": str(store),
                "target": str(target.relative_to(store)),
                "layers": layers,
                "user": user,
                "working_dir": working_dir,
            }
        )

    def own(self, folder: Path) -> Path:
        """`folder`, made for the unpacking user to write in."""
        folder.mkdir(mode=0o755)
        if self.uid is not None:
            os.chown(folder, self.uid, self.uid)
        return folder

    def _run(self, request: dict[str, Any], stream: BinaryIO | None = None) -> dict[str, Any]:
        request |= {"uid": self.uid, "limit_bytes": self.limits.bytes, "limit_files": self.limits.files}
        command = [sys.executable, "-I", "-m", "perak.agent.images.unpacker", json.dumps(request)]
        try:
            done = _run_while_wanted(command, stream)
        except subprocess.TimeoutExpired:
            raise Refused(f"it was not unpacked within {SECONDS_MAX:g} s") from None
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            words = done.stderr.strip()[-LAST_WORDS_CHARACTERS:]
            raise Refused(f"what unpacks it ended with {done.returncode}: {words}") from None
        if "error" in answer:
            raise Refused(answer["error"])
        result: dict[str, Any] = answer["ok"]
        return result


def _run_while_wanted(command: list[str], stream: BinaryIO | None) -> subprocess.CompletedProcess[str]:
    """Run to its end; raises TimeoutExpired after SECONDS_MAX, NotWanted when it was called off."""
    with subprocess.Popen(
        command,
        stdin=stream if stream is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        cwd="/",
        start_new_session=True,
    ) as process:
        until = time.monotonic() + SECONDS_MAX
        try:
            while True:
                try:
                    said, errors = process.communicate(timeout=WANTED_SECONDS)
                    return subprocess.CompletedProcess(command, process.returncode, said, errors)
                except subprocess.TimeoutExpired:
                    wanted.check()
                    if time.monotonic() > until:
                        raise
        except BaseException:
            process.kill()
            raise
