"""Is a device fit to be offered? Only one that ran a kernel inside the sandbox, alone, as a run would."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING

from perak.agent.probe.kernel import PASSED
from perak.agent.probe.nvidia import Nvidia
from perak.agent.sandbox import Mount, RunSpec, Sandbox
from perak.agent.sandbox.sandbox import PROBE_PREFIX
from perak.agent.sandbox.tier import BrokenOff
from perak.domain.offer import Device

if TYPE_CHECKING:
    from pathlib import Path

    from perak.agent.environments import Interpreter

log = logging.getLogger(__name__)

CHECK_SECONDS = 60.0
"""The driver of a machine with eight cards, without persistence mode, takes some ten seconds to wake."""
AGAIN_SECONDS = 600.0
"""A device that failed is tried again so often: a driver may have been repaired meanwhile."""
POLL_SECONDS = 0.02
MEMORY_BYTES = 2 * 2**30
"""The driver keeps some 300 MiB of the host's memory for one context."""
DISK_BYTES = 64 * 2**20
"""The driver may keep what it translated below the home folder."""
PIDS_MAX = 64
REASON_CHARACTERS_MAX = 300
UNCHECKED = "it has not been checked yet"


@dataclass(slots=True, kw_only=True)
class Fitness:
    """Which devices are fit; remembers the answers. One thread at a time."""

    sandbox: Sandbox
    nvidia: Nvidia
    interpreter: Interpreter | None
    """The Python that runs the check; one that runs see, too."""
    check_seconds: float = CHECK_SECONDS
    again_seconds: float = AGAIN_SECONDS
    _answers: dict[str, tuple[float, str | None]] = field(default_factory=dict)
    """By UUID: when, and what failed."""

    def check(self, devices: Iterable[Device]) -> None:
        """Check what is new or failed some time ago, all at once; blocks until they have answered.

        A device that a run uses is left alone: it was fit when it was leased, and the run may need all of it.
        When the agent ends (`sandbox.leave`), nothing is found out.
        """
        busy, now = self._busy(), time.monotonic()
        due = [each for each in devices if each.uuid not in busy and self._is_due(each.uuid, now)]
        try:
            answers = self._check(due)
        except BrokenOff:
            return
        for uuid, problem in answers.items():
            self._answers[uuid] = (time.monotonic(), problem)
            if problem is not None:
                log.warning("the device %s is not offered: %s", uuid, problem)
            else:
                log.info("the device %s ran a kernel in the sandbox", uuid)

    def is_due(self, devices: Iterable[Device]) -> bool:
        """Whether `check` would have something to do."""
        now = time.monotonic()
        due = {each.uuid for each in devices if self._is_due(each.uuid, now)}
        return bool(due and due - self._busy())

    def unfit(self, devices: Iterable[Device]) -> dict[str, str]:
        """Why a device is not fit, by UUID, for those of `devices` that are not, by the last check."""
        found: dict[str, str] = {}
        busy = self._busy()
        for each in devices:
            _, problem = self._answers.get(each.uuid, (0.0, None if each.uuid in busy else UNCHECKED))
            if problem is not None:
                found[each.uuid] = problem
        return found

    def _is_due(self, uuid: str, now: float) -> bool:
        if uuid not in self._answers:
            return True
        at, problem = self._answers[uuid]
        return problem is not None and now - at >= self.again_seconds

    def _busy(self) -> set[str]:
        """The devices of every run that has not ended."""
        busy: set[str] = set()
        for status in self.sandbox.find():
            if status.state in ("prepared", "running"):
                try:
                    visible = self.sandbox.load(status.run_id).env.get("CUDA_VISIBLE_DEVICES", "")
                except (KeyError, OSError):  # released meanwhile
                    continue
                busy.update(visible.split(","))
        return busy

    def _check(self, devices: list[Device]) -> dict[str, str | None]:
        if self.interpreter is None:
            why = "there is no Python in /usr or /opt to check it with; install python3"
            return dict.fromkeys((each.uuid for each in devices), why)
        started: dict[str, str] = {}
        problems: dict[str, str | None] = {}
        for device in devices:
            try:
                spec = self._spec(device, self.interpreter)
                self.sandbox.clear(spec.run_id)
                self.sandbox.prepare(spec)
                started[device.uuid] = spec.run_id
                self.sandbox.start(spec.run_id)
            except (OSError, RuntimeError, ValueError, LookupError) as error:
                problems[device.uuid] = f"the sandbox could not be made for it: {error}"
        deadline = time.monotonic() + self.check_seconds
        try:
            for uuid, run_id in started.items():
                if uuid not in problems:
                    problems[uuid] = self._outcome(run_id, deadline)
        finally:
            for run_id in started.values():
                self.sandbox.clear(run_id)
        return problems

    def _spec(self, device: Device, interpreter: Interpreter) -> RunSpec:
        access = self.nvidia.access((device.uuid,))
        program = resources.files("perak.agent.probe").joinpath("kernel.py").read_text()
        command = f"exec {shlex.quote(str(interpreter.path))} -I -S -c {shlex.quote(program)}"
        return RunSpec(
            run_id=f"{PROBE_PREFIX}-gpu{device.index}@local",
            command=command,
            env=access.env,
            mounts=(*_own_prefix(interpreter.prefix), *access.mounts),
            masks=access.masks,
            device_nodes=access.nodes,
            cpu_milli=1000,
            memory_bytes=MEMORY_BYTES,
            disk_bytes=DISK_BYTES,
            shm_bytes=2**20,
            pids_max=PIDS_MAX,
            log_bytes_max=64 * 1024,
            max_duration_seconds=self.check_seconds,
            grace_seconds=0.1,
        )

    def _outcome(self, run_id: str, deadline: float) -> str | None:
        """What failed; None: the kernel ran and its result was right."""
        while (status := self.sandbox.status(run_id)).state in ("prepared", "running"):
            if time.monotonic() > deadline:
                break
            self.sandbox.leave.check()
            time.sleep(POLL_SECONDS)
        lines = self.sandbox.read_log(run_id, 0, 64 * 1024).decode(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if status.state in ("prepared", "running") or status.cause == "max_duration":
            return f"its check did not end within {self.check_seconds:g} s: the driver or the device hangs"
        if status.cause == "exited" and status.exit_code == 0 and said == PASSED:
            return None
        return (said or status.detail or f"its check ended as {status.cause}")[:REASON_CHARACTERS_MAX]


def _own_prefix(prefix: Path) -> tuple[Mount, ...]:
    """A Python outside /usr has to be shown to the run."""
    text = str(prefix)
    return () if text == "/usr" or text.startswith("/usr/") else (Mount(source=text, target=text),)
