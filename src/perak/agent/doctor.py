"""What an agent would find on this machine, and what to install or change; no exchange is needed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perak.agent.sandbox import Sandbox, TierReport
from perak.agent.sandbox.probe import probe
from perak.agent.sandbox.tiers.probe import probe_tiers
from perak.domain import checklist
from perak.domain.units import format_bytes

State = Literal["ok", "limited", "problem", "unknown"]

WORKPLACE = Path("/var/tmp")  # noqa: S108 - a folder with a random name below it, which runs' users can reach
DISK_LEAST_BYTES = 5 * 2**30
"""Below this a node has room for little more than one environment with PyTorch."""
MEMORY_LEAST_BYTES = 2**30
STA_UNSYNC = 0x0040
"""Of adjtimex(2): the kernel's clock is not kept by anybody."""

UPGRADE = "upgrade the runtime; if it is the newest, please report this: until then no job runs in it"
_GROUPS = (
    "run the agent as root, or as a service with Delegate=yes (perak agent install); in a container: in one "
    "that may write to /sys/fs/cgroup (docker run --privileged)"
)
_IMAGE = "run the agent as root, with loop devices (modprobe loop) and mkfs.ext4 (apt install e2fsprogs)"
_OURS = "Perak holds it by itself: if it fails on a quiet machine too, please report this"
AGAIN = "where it does not say what to do: try again while nothing else keeps the machine busy"
ADVICE = {
    "uid": "run the agent as root, so that each run gets a user of its own (perak agent install)",
    "seccomp": "install libseccomp2 (apt) and pyseccomp (pip); if they are there, upgrade the runtime",
    "memory": _GROUPS,
    "cpu": _GROUPS,
    "pids": _GROUPS,
    "disk": _IMAGE,
    "inodes": _IMAGE,
    "open_files": _OURS,
    "log_rate": _OURS,
    "run_time": _OURS,
}
"""What helps where a limit does not hold; for the rest, UPGRADE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the agent needs or can use. `advice`: what to install or change; None: all is well."""

    name: str
    state: State
    detail: str
    advice: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All that was looked at. `tiers`: the default one first, those without a runtime too."""

    tiers: tuple[TierReport, ...]
    findings: tuple[Finding, ...]

    @property
    def can_offer(self) -> bool:
        """Whether an agent would start here."""
        return self.tiers[0].available


def diagnose(state_dir: Path, *, tell: Callable[[str], None] = lambda _: None) -> Diagnosis:
    """Try everything anew; takes some seconds for each tier. `tell` is given what is being looked at.

    `state_dir` is where the agent works or would; it is only looked at. The trial has a folder of its own, so
    it may go on beside an agent.
    """
    with _workplace() as folder:
        tell("the sandbox")
        sandbox, default = probe(folder, fresh=True)
        if sandbox is None:
            return Diagnosis(tiers=(default,), findings=(*_machine(state_dir), *_limits(default)))
        try:
            tell("the other sandbox tiers")
            probe_tiers(sandbox, fresh=True)
            tell("the devices")
            devices = _devices(sandbox)
            tiers = tuple(sandbox.tiers.values())
        finally:
            sandbox.close()
    return Diagnosis(tiers=tiers, findings=(*_machine(state_dir), *_limits(default), *devices))


def advice_on(result: checklist.CheckResult) -> str:
    """What to do where a check of the escape checklist failed or could not be tried."""
    check = checklist.BY_NAME[result.name]
    if result.outcome == "not_run":
        return ADVICE.get(check.limit, "") if check.may_lack else AGAIN
    return ADVICE.get(check.limit, UPGRADE)


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="perak-doctor-", dir=WORKPLACE))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _limits(tier: TierReport) -> list[Finding]:
    """What the machine can't enforce; offers carry it as a mark."""
    untried = {
        checklist.BY_NAME[each.name].limit: advice_on(each)
        for each in tier.checks
        if each.outcome == "not_run"
    }
    failed = {checklist.BY_NAME[each.name].limit for each in tier.checks if each.outcome == "failed"}
    return [
        Finding(
            name=f"limit: {limit}",
            state="limited",
            detail=why,
            advice=untried[limit] if limit in untried.keys() - failed else ADVICE.get(limit, UPGRADE),
        )
        for limit, why in tier.unenforced.items()
    ]


def _machine(state_dir: Path) -> list[Finding]:
    return [_user(), _python(), _packages(), _disk(state_dir), _memory(), _clock()]


def _user() -> Finding:
    if os.geteuid() == 0:
        return Finding(name="user", state="ok", detail="root: each run gets a user of its own")
    detail = f"uid {os.geteuid()}: all runs share it outside their sandboxes"
    return Finding(name="user", state="limited", detail=detail, advice=ADVICE["uid"])


def _python() -> Finding:
    from perak.agent.environments import interpreters

    found = interpreters()
    if found:
        return Finding(name="python for jobs", state="ok", detail=", ".join(each.full for each in found))
    detail = "none in /usr or /opt that every user may run: jobs get no Python environments"
    return Finding(name="python for jobs", state="problem", detail=detail, advice="apt install python3")


def _packages() -> Finding:
    import importlib.util

    name = "python packages"
    if importlib.util.find_spec("uv") or shutil.which("uv"):
        return Finding(name=name, state="ok", detail="uv is there, which installs what jobs name")
    return Finding(name=name, state="problem", detail="uv is missing", advice="pip install 'perak[agent]'")


def _disk(state_dir: Path) -> Finding:
    place = next(each for each in (state_dir, *state_dir.absolute().parents) if each.exists())
    free = shutil.disk_usage(place).free
    detail = f"{format_bytes(free)} free at {place}"
    if free >= DISK_LEAST_BYTES:
        return Finding(name="disk", state="ok", detail=detail)
    advice = "make room, or choose another --state-dir: one environment with PyTorch takes 5 GB"
    return Finding(name="disk", state="problem", detail=detail, advice=advice)


def _memory() -> Finding:
    from perak.agent.probe.machine import probe_machine

    machine = probe_machine(Path("/"))
    detail = f"{format_bytes(machine.memory_bytes)}, {machine.cpu_milli / 1000:g} cores ({machine.cpu_model})"
    if machine.memory_bytes >= MEMORY_LEAST_BYTES:
        return Finding(name="memory", state="ok", detail=detail)
    return Finding(name="memory", state="problem", detail=detail, advice="too little for jobs of others")


def _clock() -> Finding:
    """Reports are signed with a time, and refused more than five minutes off."""
    answer = ctypes.create_string_buffer(256)  # struct timex, with room to spare
    try:
        ctypes.CDLL(None, use_errno=True).adjtimex(answer)
        status = ctypes.c_int.from_buffer(answer, 5 * ctypes.sizeof(ctypes.c_long)).value
    except (OSError, AttributeError):
        return Finding(name="clock", state="unknown", detail="the kernel does not say whether it is kept")
    if not status & STA_UNSYNC:
        return Finding(name="clock", state="ok", detail="kept by a time service")
    detail = "no time service keeps it; an exchange refuses a node that is five minutes off"
    return Finding(name="clock", state="limited", detail=detail, advice="apt install chrony")


def _devices(sandbox: Sandbox) -> list[Finding]:
    from perak.agent.environments import interpreters
    from perak.agent.probe.fitness import Fitness
    from perak.agent.probe.nvidia import Nvidia

    nvidia = Nvidia.open()
    if nvidia is None:
        detail = "none that NVIDIA's driver knows: CPU jobs only"
        return [Finding(name="GPU", state="limited", detail=detail, advice="docs/gpu.md, if there is one")]
    found = interpreters()
    devices = [each.device for each in nvidia.devices]
    fitness = Fitness(sandbox=sandbox, nvidia=nvidia, interpreter=found[0] if found else None)
    fitness.check(devices)
    unfit = fitness.unfit(devices)
    return [
        Finding(
            name=f"GPU {device.index}",
            state="problem" if device.uuid in unfit else "ok",
            detail=f"{device.model}: {unfit.get(device.uuid, 'ran a kernel in the sandbox')}",
            advice="docs/gpu.md names what each answer of the driver means" if device.uuid in unfit else None,
        )
        for device in devices
    ]
