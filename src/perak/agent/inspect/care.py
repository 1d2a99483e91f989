"""When a node's devices are inspected, wiped and challenged: at enrolment, between leases, after a fault.

A lease comes first: an inspection is ended the moment one wants its device, and comes again later. A wipe is
finished before the next run starts. What is due outlives the agent in a small file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import msgspec

from perak.agent.inspect import talk
from perak.agent.inspect.runner import Cancelled, CannotInspect, Runner
from perak.agent.settings import Limits
from perak.domain.hardware.challenge import Answer, Challenge
from perak.domain.hardware.inspection import DeviceInspection, Kind, Trigger
from perak.domain.report import Body, Inspected, Proved, Wiped

_T = TypeVar("_T")

log = logging.getLogger(__name__)

FILE_NAME = "devices.json"
AGAIN_SECONDS = 3_600.0
"""Between two tries on a device where nothing could be inspected: somebody may have installed what lacks."""
UUIDS_KEPT_MAX = 8
"""Of what a device in one place was called before; an honest one has one."""
SUSPECT = "it failed in use, or could not be wiped: it is inspected first"
CPU = "cpu"
"""How the processor is called until its inspection says its name."""


class Kept(msgspec.Struct, kw_only=True):
    """What is kept of one device; times are Unix seconds."""

    quick_at: float | None = None
    full_at: float | None = None
    soak_at: float | None = None
    tried_at: float | None = None
    fault: bool = False
    wipe: str | None = None
    """The lease after which it has not been wiped yet."""


class _File(msgspec.Struct, kw_only=True):
    devices: dict[str, Kept] = {}
    uuids: dict[str, tuple[str, ...]] = {}
    """By place on the bus and by serial number: what the device there was called."""


@dataclass(slots=True, kw_only=True)
class Care:
    """Looks after the devices of one node. `devices`: those of now; `busy`: those that live runs have."""

    path: Path
    limits: Limits
    report: Callable[[Body], object]
    devices: Callable[[], Iterable[str]]
    busy: Callable[[], set[str]]
    make_runner: Callable[[], Runner] = Runner
    can_inspect: bool = field(default_factory=lambda: find_spec("pyopencl") is not None)
    _file: _File = field(init=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One process at a time has the devices."""
    _inspecting: tuple[Runner, set[str]] | None = None
    _idle_since: dict[str, float] = field(default_factory=dict)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "devices"))

    def __post_init__(self) -> None:
        try:
            self._file = msgspec.json.decode(self.path.read_bytes(), type=_File)
        except (OSError, msgspec.MsgspecError):
            self._file = _File()  # A lost file only means that everything is due.

    # What the node's loop tells

    async def before_run(self, devices: Iterable[str]) -> None:
        """End the inspection of these devices, and see their wipes done, before a run has them."""
        wanted = set(devices)
        if not wanted:
            return
        waits = any(self._of(uuid).wipe is not None for uuid in wanted)
        self._make_way(None if waits else wanted)
        if waits:
            async with self._turn:
                await self._wipe(wanted)
        elif self._inspecting is not None:
            async with self._turn:
                pass  # Its process is gone once it is our turn.

    def after_run(self, lease: str, devices: Iterable[str], *, faulty: bool) -> None:
        """A run that had these devices has ended; `faulty`: by what seems to be their doing."""
        for uuid in devices:
            self._of(uuid).wipe = lease
            self._of(uuid).fault |= faulty
        self._keep()

    def faulted(self, uuid: str) -> None:
        """The driver told an error of it: it is inspected as soon as it is idle."""
        self._of(uuid).fault = True
        self._keep()

    def suspects(self) -> dict[str, str]:
        """Devices that no run has and that wait for an inspection after a fault, and why: none is offered."""
        if not self.can_inspect:
            return {}
        busy = self.busy()
        return {uuid: SUSPECT for uuid, kept in self._file.devices.items() if kept.fault and uuid not in busy}

    async def challenged(self, challenge: Challenge) -> None:
        """Answer the exchange: one report a device, as each takes some 50 kB."""
        wanted = set(challenge.devices)
        if taken := wanted & self.busy():
            self.report(Proved(answer=_without(challenge, f"a lease has {', '.join(sorted(taken))[:200]}")))
            return
        self._make_way(None)
        async with self._turn:
            try:
                answer = await self._in_thread(lambda: self.make_runner().prove(challenge))
            except OSError as error:
                answer = _without(challenge, f"the process could not be started: {error}")
        if answer.problem or not answer.proofs:
            self.report(Proved(answer=_without(challenge, answer.problem or "no device answered")))
        for proof in answer.proofs:
            self.report(Proved(answer=Answer(challenge=challenge.id, proofs=(proof,))))

    async def watch(self) -> None:
        """Do what is due, for as long as the agent lives."""
        if not self.can_inspect:
            log.warning("devices are neither inspected nor wiped: perak[inspect] is not installed")
        try:
            while True:
                try:
                    await self.step()
                except Exception:  # A driver or a disk in trouble must not end the agent, nor its runs.
                    log.exception("looking after the devices failed; it is tried again")
                await asyncio.sleep(self.limits.device_check_seconds)
        finally:
            self._make_way(None)
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def step(self) -> None:
        """Do what is due now."""
        busy = self.busy()
        now = time.time()
        free = [uuid for uuid in self._known() if uuid not in busy]
        self._idle_since = {uuid: self._idle_since.get(uuid, now) for uuid in free}
        if due := {uuid for uuid in free if self._of(uuid).wipe is not None}:
            async with self._turn:
                await self._wipe(due)
        if not self.can_inspect:
            return
        for uuid in free:
            kind, trigger = self._due(uuid, now)
            if kind is not None and trigger is not None:
                await self._inspect(uuid, kind, trigger)
                return  # Things may have changed meanwhile.

    def _known(self) -> list[str]:
        found = list(self.devices())
        return found or ([CPU] if self.limits.inspect_cpu else [])

    def _due(self, uuid: str, now: float) -> tuple[Kind | None, Trigger | None]:
        """What this idle device is due for, the most urgent first."""
        kept, limits = self._of(uuid), self.limits
        if kept.tried_at is not None and now - kept.tried_at < min(
            AGAIN_SECONDS, limits.inspect_every_seconds
        ):
            return None, None
        if kept.fault:
            return "full", "fault"
        if kept.quick_at is None:
            return "quick", "enrolment"
        if now - self._idle_since.get(uuid, now) < limits.inspect_idle_seconds:
            return None, None
        if now - (kept.soak_at or 0.0) >= limits.soak_every_seconds:
            return "soak", "schedule"
        if now - (kept.full_at or 0.0) >= limits.inspect_every_seconds:
            return "full", "schedule"
        return None, None

    # What is done

    async def _inspect(self, uuid: str, kind: Kind, trigger: Trigger) -> None:
        request = talk.Inspect(
            kind=kind,
            trigger=trigger,
            soak_seconds=self.limits.soak_seconds if kind == "soak" else 0.0,
            uuids=() if uuid == CPU else (uuid,),
            earlier_uuids=self._file.uuids,
        )
        runner = self.make_runner()
        async with self._turn:
            if uuid in self.busy():
                return
            self._inspecting = (runner, {uuid})
            log.info("device %s is inspected (%s, %s)", uuid, kind, trigger)
            try:
                found = await self._in_thread(lambda: runner.inspect(request))
            except Cancelled:
                log.info("the inspection of %s made way for a lease", uuid)
                return
            except CannotInspect as error:
                log.warning("device %s could not be inspected: %s", uuid, error.detail)
                self._of(uuid).tried_at = time.time()
                self._keep()
                return
            finally:
                self._inspecting = None
        for each in found:
            self._note(uuid, each)
            self.report(Inspected(inspection=each))

    def _note(self, uuid: str, found: DeviceInspection) -> None:
        kept, now = self._of(uuid), time.time()
        kept.quick_at, kept.fault = now, False
        if found.kind != "quick":
            kept.full_at = now
        if found.kind == "soak":
            kept.soak_at = now
        identity = found.identity
        for key in (identity.pci_bus, identity.serial):
            if key:
                called = dict.fromkeys((*self._file.uuids.get(key, ()), identity.uuid))
                self._file.uuids[key] = tuple(called)[-UUIDS_KEPT_MAX:]
        self._keep()

    async def _wipe(self, devices: set[str]) -> None:
        """Overwrite what waits for it; `_turn` is held."""
        by_lease: dict[str, list[str]] = {}
        for uuid in sorted(devices):
            lease = self._of(uuid).wipe
            if lease is not None:
                by_lease.setdefault(lease, []).append(uuid)
        for lease, uuids in by_lease.items():
            runner = self.make_runner()
            records = await self._in_thread(lambda r=runner, u=uuids, at=lease: r.wipe(tuple(u), lease=at))  # type: ignore[misc]
            for record in records:
                kept = self._of(record.device)
                kept.wipe = None
                kept.fault |= record.status == "failed"
                log.info("device %s was wiped after %s: %s", record.device, lease, record.status)
                self.report(Wiped(record=record))
        self._keep()

    def _make_way(self, wanted: set[str] | None) -> None:
        """End the inspection of one of these devices; None: whichever it is."""
        if self._inspecting is not None and (wanted is None or self._inspecting[1] & wanted):
            self._inspecting[0].cancel()

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def _of(self, uuid: str) -> Kept:
        return self._file.devices.setdefault(uuid, Kept())

    def _keep(self) -> None:
        """Replace the file whole; a disk that is full costs an inspection again, no more."""
        fresh = self.path.with_suffix(".new")
        with contextlib.suppress(OSError):
            fresh.write_bytes(msgspec.json.encode(self._file))
            os.replace(fresh, self.path)


def _without(challenge: Challenge, problem: str) -> Answer:
    return Answer(challenge=challenge.id, problem=problem)
