"""When devices are inspected, wiped and challenged: a lease comes first, and nothing due is forgotten."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from perak.agent.inspect import talk
from perak.agent.inspect.care import Care
from perak.agent.inspect.runner import Cancelled
from perak.agent.settings import Limits
from perak.domain.hardware.challenge import Answer, Challenge, DeviceProof
from perak.domain.hardware.inspection import DeviceIdentity, DeviceInspection, complete
from perak.domain.hardware.wipe import WipeRecord
from perak.domain.report import Body, Inspected, Proved, Wiped

GPU = "GPU-1"
LIMITS = Limits(inspect_idle_seconds=0.0, device_check_seconds=0.01)
PATIENCE_SECONDS = 30.0


@dataclass
class Bench:
    """Stands in for the processes; `hold` keeps an inspection under way."""

    asked: list[str] = field(default_factory=list)
    hold: bool = False
    began: threading.Event = field(default_factory=threading.Event)
    wipe_status: str = "passed"

    def runner(self) -> FakeRunner:
        return FakeRunner(self)


@dataclass
class FakeRunner:
    bench: Bench
    cancelled: threading.Event = field(default_factory=threading.Event)

    def inspect(
        self, request: talk.Inspect, *, say: Callable[[talk.Said], None] = lambda _: None
    ) -> list[DeviceInspection]:
        self.bench.asked.append(f"{request.kind} {request.trigger}")
        self.bench.began.set()
        if self.bench.hold:
            assert self.cancelled.wait(PATIENCE_SECONDS)
            raise Cancelled
        identity = DeviceIdentity(
            uuid=request.uuids[0], model="x", kind="nvidia", index=0, pci_bus="0000:01:00.0"
        )
        return [
            DeviceInspection(
                identity=identity, kind=request.kind, trigger=request.trigger, started_at=1, ended_at=2,
                checks=complete(()),
            )
        ]  # fmt: skip

    def wipe(self, devices: tuple[str, ...], *, lease: str, cpu: bool = False) -> list[WipeRecord]:
        self.bench.asked.append(f"wipe {lease}")
        return [
            WipeRecord(device=each, lease=lease, status=self.bench.wipe_status, started_at=1, ended_at=2)  # type: ignore[arg-type]
            for each in devices
        ]

    def prove(self, challenge: Challenge) -> Answer:
        self.bench.asked.append("prove")
        proofs = (
            DeviceProof(device=each, root="0" * 64, openings=(), seconds=1.0) for each in challenge.devices
        )
        return Answer(challenge=challenge.id, proofs=tuple(proofs))

    def cancel(self) -> None:
        self.cancelled.set()


@dataclass
class World:
    folder: Path
    bench: Bench = field(default_factory=Bench)
    reports: list[Body] = field(default_factory=list)
    busy: set[str] = field(default_factory=set)
    devices: tuple[str, ...] = (GPU,)

    def care(self, limits: Limits = LIMITS) -> Care:
        return Care(
            path=self.folder / "devices.json",
            limits=limits,
            report=self.reports.append,
            devices=lambda: self.devices,
            busy=lambda: self.busy,
            make_runner=self.bench.runner,  # type: ignore[arg-type]
            can_inspect=True,
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_new_device_is_inspected_quickly_at_once_then_soaked_when_idle(world: World) -> None:
    care = world.care()
    for _ in range(4):
        await care.step()
    assert world.bench.asked == ["quick enrolment", "soak schedule"]
    assert [type(body) for body in world.reports] == [Inspected, Inspected]


async def test_what_was_inspected_is_known_after_a_restart(world: World) -> None:
    await world.care().step()
    await world.care(Limits(inspect_idle_seconds=3600.0)).step()
    assert world.bench.asked == ["quick enrolment"]


async def test_no_device_of_a_lease_is_inspected(world: World) -> None:
    world.busy = {GPU}
    await world.care().step()
    assert world.bench.asked == []


async def test_a_lease_ends_the_inspection_of_its_device_and_nothing_is_reported_of_it(world: World) -> None:
    world.bench.hold = True
    care = world.care()
    step = asyncio.create_task(care.step())
    assert await asyncio.to_thread(world.bench.began.wait, PATIENCE_SECONDS)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await care.before_run((GPU,))
        await step
    assert world.reports == []
    world.bench.hold = False
    await care.step()
    assert world.bench.asked == ["quick enrolment", "quick enrolment"], "it comes again"


async def test_a_lease_on_another_device_does_not_disturb_it(world: World) -> None:
    world.bench.hold = True
    care = world.care()
    step = asyncio.create_task(care.step())
    assert await asyncio.to_thread(world.bench.began.wait, PATIENCE_SECONDS)
    waiting = asyncio.create_task(care.before_run(()))
    await waiting
    assert not step.done()
    care._make_way(None)
    await step


async def test_a_device_is_wiped_after_its_lease_and_before_the_next(world: World) -> None:
    care = world.care()
    care.after_run("lease_1", (GPU,), faulty=False)
    await care.before_run((GPU,))
    assert world.bench.asked == ["wipe lease_1"]
    assert isinstance(world.reports[0], Wiped)
    await care.before_run((GPU,))
    assert world.bench.asked == ["wipe lease_1"], "once is enough"


async def test_a_wipe_that_is_due_outlives_the_agent(world: World) -> None:
    world.care().after_run("lease_1", (GPU,), faulty=False)
    await world.care(Limits(inspect_idle_seconds=3600.0)).step()
    assert world.bench.asked[0] == "wipe lease_1"


async def test_a_fault_and_a_failed_wipe_bring_a_full_inspection(world: World) -> None:
    await (care := world.care(Limits(inspect_idle_seconds=3600.0))).step()
    care.after_run("lease_1", (GPU,), faulty=True)
    await care.step()
    world.bench.wipe_status = "failed"
    care.after_run("lease_2", (GPU,), faulty=False)
    await care.step()
    assert world.bench.asked == [
        "quick enrolment", "wipe lease_1", "full fault", "wipe lease_2", "full fault",
    ]  # fmt: skip


async def test_a_device_that_failed_is_not_offered_until_it_was_inspected(world: World) -> None:
    await (care := world.care(Limits(inspect_idle_seconds=3600.0))).step()
    assert care.suspects() == {}
    world.busy = {GPU}
    care.faulted(GPU)
    assert care.suspects() == {}, "the run's receipt is yet to name it"
    world.busy = set()
    assert set(care.suspects()) == {GPU}
    assert set(world.care().suspects()) == {GPU}, "it outlives the agent"
    await care.step()
    assert care.suspects() == {}
    care.faulted(GPU)
    care.can_inspect = False
    assert care.suspects() == {}, "where nothing can be inspected it would never come back"


async def test_a_challenge_is_answered_with_one_report_a_device(world: World) -> None:
    asked = Challenge(id="x", nonce="0" * 32, devices=("GPU-1", "GPU-2"), leaves=16)
    await world.care().challenged(asked)
    assert [each.answer.proofs[0].device for each in world.reports if isinstance(each, Proved)] == [
        "GPU-1",
        "GPU-2",
    ]


async def test_a_challenge_that_meets_a_lease_says_so(world: World) -> None:
    world.busy = {GPU}
    await world.care().challenged(Challenge(id="x", nonce="0" * 32, devices=(GPU,), leaves=16))
    (body,) = world.reports
    assert isinstance(body, Proved)
    assert "lease" in body.answer.problem
    assert world.bench.asked == []


async def test_a_device_that_changes_its_uuid_is_remembered_by_its_place(world: World) -> None:
    care = world.care(Limits(inspect_idle_seconds=3600.0))
    await care.step()
    world.devices = ("GPU-2",)
    await care.step()
    assert care._file.uuids["0000:01:00.0"] == ("GPU-1", "GPU-2")


async def test_a_node_without_devices_or_opencl_does_nothing(world: World) -> None:
    world.devices = ()
    await world.care().step()
    assert world.bench.asked == []
