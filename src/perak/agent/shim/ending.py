"""How a run ended: its cause, and exit.json, which nobody else could write."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from perak.agent.shim.limits import Watch, counter, files_taken, is_full
from perak.agent.shim.log import NO_ROOM, ROOM_LOOK_SECONDS

if TYPE_CHECKING:
    from perak.agent.sandbox.launch import Launch
    from perak.agent.shim.stage import Stage

SHELL_EXIT_SIGNAL = 128  # a shell's exit code for "killed by signal N" is 128 + N
SIGNAL_MAX = signal.NSIG - 1


def exit_code(stage: Stage) -> int:
    """As a shell would say it."""
    assert stage.code is not None
    return stage.code if stage.code >= 0 else SHELL_EXIT_SIGNAL - stage.code


def killed_by(code: int) -> int | None:
    """The signal that an exit code stands for."""
    return code - SHELL_EXIT_SIGNAL if 0 < code - SHELL_EXIT_SIGNAL <= SIGNAL_MAX else None


def cause(stage: Stage, plan: Launch, watch: Watch, last_words: bytes) -> tuple[str, str | None]:
    """Why a run that nobody ended has, by its last stage, and what there is to say of it."""
    code = exit_code(stage)
    if code != 0 and (counter(plan, "oom") or 0) > 0:
        return "oom", f"out of memory (limit {plan['memory_bytes']} bytes) in {stage.name}"
    if not stage.started:
        return "sandbox", last_words.decode(errors="replace").strip() or "the sandbox did not start"
    if code == 0:
        return "exited", None
    if watch.disk_was_full or (plan["disk_watch_bytes"] is None and is_full(plan["scratch"])):
        files = files_taken(plan["scratch"])
        by = f" of files: all {files} that it has room for are made," if files else ""
        return "disk_full", f"the scratch of {plan['disk_bytes']} bytes was full{by} in {stage.name}"
    if stage.name == "setup":
        return "setup", f"setup ended with exit code {code}"
    return "exited" if killed_by(code) is None else "signal", None


def write_when_there_is_room(folder: str, name: str, record: dict[str, Any]) -> None:
    """Nobody but the shim knows how the run ended: on a full disk it waits."""
    while True:
        try:
            return _write_durably(folder, name, record)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            time.sleep(ROOM_LOOK_SECONDS)


def _write_durably(folder: str, name: str, record: dict[str, Any]) -> None:
    """In place at once, and still there after a power cut."""
    draft = os.path.join(folder, f".{name}")
    with open(draft, "w") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, os.path.join(folder, name))
