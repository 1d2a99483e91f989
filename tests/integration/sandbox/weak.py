"""Sandboxes weakened in one point: by bubblewrap's arguments, by the filter, or by a limit not kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from perak.agent.sandbox import RunFolder, RunSpec, Sandbox
from perak.agent.sandbox.sandbox import Host
from perak.agent.sandbox.tiers import Start

Change = Callable[[list[str]], list[str]]

ROOT_CLOSES = ["--remount-ro", "/"]
DEV_CLOSES = ["--remount-ro", "/dev"]


class WeakSandbox(Sandbox):
    """A real sandbox but for `arguments`, changed before bubblewrap gets them, and `limits`, not kept."""

    def __init__(
        self,
        state_dir: Path,
        host: Host,
        *,
        arguments: Change | None = None,
        limits: dict[str, Any] | None = None,
        plan: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(state_dir, host)
        self._change = arguments
        self._limits = limits or {}
        self._weak_plan = plan or {}

    def prepare(self, spec: RunSpec) -> RunFolder:
        folder = super().prepare(replace(spec, **self._limits))
        if self._weak_plan:
            path = folder.path / "launch.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | self._weak_plan))
        return folder

    def _plan_start(self, folder: Path, spec: RunSpec) -> Start:
        start = super()._plan_start(folder, spec)
        return replace(start, arguments=self._change(start.arguments)) if self._change else start


def before(place: Sequence[str], *added: str) -> Change:
    """Put arguments before those of `place`."""

    def change(arguments: list[str]) -> list[str]:
        at = _find(arguments, place)
        return [*arguments[:at], *added, *arguments[at:]]

    return change


def without(*removed: str) -> Change:
    def change(arguments: list[str]) -> list[str]:
        at = _find(arguments, removed)
        return [*arguments[:at], *arguments[at + len(removed) :]]

    return change


def sharing(kind: str) -> Change:
    """The node's own namespace of that kind; with it for processes, the node's /proc."""
    kinds = [each for each in ("pid", "ipc", "uts", "net", "cgroup") if each != kind]

    def change(arguments: list[str]) -> list[str]:
        at = _find(arguments, ["--unshare-all"])
        changed = [*arguments[:at], *(f"--unshare-{each}" for each in kinds), *arguments[at + 1 :]]
        if kind == "uts":
            changed = without("--hostname", "perak")(changed)
        if kind == "pid":
            at = _find(changed, ["--proc", "/proc"])
            changed[at : at + 2] = ["--ro-bind", "/proc", "/proc"]
        return changed

    return change


def _find(arguments: list[str], place: Sequence[str]) -> int:
    wanted = list(place)
    (at,) = [i for i in range(len(arguments)) if arguments[i : i + len(wanted)] == wanted]
    return at


def filter_that_answers_yes(path: Path, *calls: str) -> Path:
    """A filter that lets everything through, and says of `calls` that they were done, without doing them.

    So what only the kernel's own super-user could do looks as if a job had done it.
    """
    import pyseccomp

    rules = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
    for name in calls:
        if name == "no_new_privs":
            rules.add_rule(pyseccomp.ERRNO(0), "prctl", pyseccomp.Arg(0, pyseccomp.EQ, 39))
        else:
            rules.add_rule(pyseccomp.ERRNO(0), name)
    with path.open("wb") as file:
        rules.export_bpf(file)
    path.chmod(0o644)
    return path
