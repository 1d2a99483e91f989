"""Sandboxes weakened in a point: in bubblewrap's arguments, a runtime's configuration, a filter, a limit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from perak.agent.sandbox import RunFolder, RunSpec, Sandbox, bwrap
from perak.agent.sandbox.escape import attack, limits
from perak.agent.sandbox.sandbox import Host
from perak.agent.sandbox.tiers import Start
from perak.domain.checklist import CheckResult

Change = Callable[[list[str]], list[str]]
Config = Callable[[dict[str, Any]], None]

ROOT_CLOSES = ["--remount-ro", "/"]
DEV_CLOSES = ["--remount-ro", "/dev"]

_one_at_a_time = threading.Lock()
"""While what lays out a job's tree is another function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaws:
    """What is wrong with a sandbox. What is not named is as it should be.

    `arguments` are those that bubblewrap gets, `tree` those among them that lay out the job's files, before
    a runtime takes them over. `config` changes an OCI runtime's, `program` the command that starts it.
    `limits` are given to every run in place of its own, `plan` to its shim. `as_root`: bubblewrap is root on
    the node, as a setuid bit on the wrong program makes it. `frozen`: who is to end a run does not get to it.
    """

    arguments: Change | None = None
    tree: Change | None = None
    config: Config | None = None
    program: Change | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    as_root: bool = False
    frozen: bool = False


class WeakSandbox(Sandbox):
    """A real sandbox but for its flaws."""

    def __init__(self, state_dir: Path, host: Host, flaws: Flaws) -> None:
        super().__init__(state_dir, host)
        self._flaws = flaws

    def prepare(self, spec: RunSpec) -> RunFolder:
        folder = super().prepare(replace(spec, **self._flaws.limits))
        plan = self._flaws.plan
        if self._flaws.as_root:
            plan = plan | {"bwrap": str(_bubblewrap_as_root(folder, self.host.binary))}
        if plan:
            path = folder.path / "launch.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | plan))
        return folder

    def stop(self, run_id: str, *, reason: str, grace_seconds: float) -> None:
        if self._flaws.frozen:
            shim = json.loads((self.folder(run_id) / "shim.json").read_text())
            os.kill(shim["pid"], signal.SIGSTOP)
        super().stop(run_id, reason=reason, grace_seconds=grace_seconds)

    def _plan_start(self, folder: Path, spec: RunSpec) -> Start:
        start, flaws = self._start(folder, spec), self._flaws
        if flaws.arguments is not None:
            start = replace(start, arguments=flaws.arguments(start.arguments))
        if (program := flaws.program) is not None:
            start = replace(start, programs={stage: program(each) for stage, each in start.programs.items()})
        if flaws.config is not None:
            start = replace(start, files=_changed(start.files, flaws.config))
        return start

    def _start(self, folder: Path, spec: RunSpec) -> Start:
        change, original = self._flaws.tree, bwrap.arguments
        if change is None:
            return super()._plan_start(folder, spec)
        with _one_at_a_time, pytest.MonkeyPatch.context() as patched:
            patched.setattr(bwrap, "arguments", lambda *args, **named: change(original(*args, **named)))
            return super()._plan_start(folder, spec)


def attacked(
    sandbox: WeakSandbox, checks: Collection[str], *, tier: str | None = None
) -> dict[str, CheckResult]:
    """What these checks find in it, with details in full.

    What it does not hold is not waited for, nor tried a second time: it is what is to be shown.
    """
    rounds = sys.modules["perak.agent.sandbox.escape.rounds"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rounds, "OPEN_SHOWN_MAX", 100)
        patched.setattr(rounds, "DETAIL_CHARACTERS", 10_000)
        patched.setattr(rounds, "_is_doubtful", lambda result: result.outcome == "not_run")
        patched.setattr(limits, "CPU_SECONDS", 0.3)
        patched.setattr(limits, "CPU_MILLI", 10)  # so that what a busy machine leaves it is too much
        patched.setattr(limits, "INODES_TRIED", 1_000)
        patched.setattr(limits, "LATE_SECONDS", 0.5)
        patched.setattr(bwrap, "NOFILE_MAX", 1_000)
        try:
            return {each.name: each for each in attack(sandbox, tier=tier, only=checks)}
        finally:
            sandbox.close()


def _changed(files: dict[str, str | bytes], change: Config) -> dict[str, str | bytes]:
    changed = dict(files)
    for name, text in files.items():
        if name.endswith("/config.json"):
            config = json.loads(text)
            change(config)
            changed[name] = json.dumps(config)
    return changed


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


def after_each_other(*changes: Change) -> Change:
    def change(arguments: list[str]) -> list[str]:
        for each in changes:
            arguments = each(arguments)
        return arguments

    return change


def sharing(*shared: str, proc: str = "--ro-bind") -> Change:
    """The node's own namespaces of those kinds; with the one for processes, the node's /proc."""
    kinds = [each for each in ("pid", "ipc", "uts", "net", "cgroup") if each not in shared]

    def change(arguments: list[str]) -> list[str]:
        at = _find(arguments, ["--unshare-all"])
        changed = [*arguments[:at], *(f"--unshare-{each}" for each in kinds), *arguments[at + 1 :]]
        if "uts" in shared:
            changed = without("--hostname", "perak")(changed)
        if "pid" in shared:
            at = _find(changed, ["--proc", "/proc"])
            changed[at : at + 2] = [proc, "/proc", "/proc"]
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


def oci_filter_that_answers_yes(*calls: str) -> dict[str, Any]:
    """The same for an OCI runtime."""
    yes = {"action": "SCMP_ACT_ERRNO", "errnoRet": 0}
    privileges = {"args": [{"index": 0, "value": 39, "op": "SCMP_CMP_EQ"}]}
    rules = [{"names": [each for each in calls if each != "no_new_privs"], **yes}]
    rules += [{"names": ["prctl"], **yes, **privileges}] if "no_new_privs" in calls else []
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}


def leaky_bubblewrap(folder: Path, real: Path) -> Path:
    """A bubblewrap that is started with a file of the node's open, as by an agent that forgot to close it."""
    return _script(folder / "leaky", f'exec 9</etc/hostname\nexec {real} "$@"\n')


def _bubblewrap_as_root(run: RunFolder, real: Path) -> Path:
    """A setuid program before bubblewrap, for the run's own user and nobody else on the node.

    The run's files are that user's, so they are opened to the root that its processes now are.
    """
    switch = shutil.which("setpriv")
    assert switch is not None, "util-linux is everywhere"
    owner = run.work.stat().st_uid
    copy = run.path / "setpriv"
    shutil.copyfile(switch, copy)
    os.chown(copy, 0, owner)
    copy.chmod(0o4710)
    for name in ("work", "tmp"):
        (run.path / "scratch" / name).chmod(0o777)
    return _script(run.path / "bwrap", f'exec {copy} --reuid=0 --regid=0 --clear-groups {real} "$@"\n')


def _script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
    return path
