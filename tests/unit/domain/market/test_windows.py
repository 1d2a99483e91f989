"""Capacity by time: a window is kept free of whatever could still run in it, and of other windows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from perak.domain.job import JobSpec, Limits, Reserve, Resources
from perak.domain.market.feasible import misfits
from perak.domain.market.match import Assignment, PendingJob, assigned, instant_match
from perak.domain.market.quote import quote
from perak.domain.market.windows import PREPARE_SECONDS, in_window, left_until
from perak.domain.offer import Claim, Device, Offer, OfferAsk

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
GIB = 2**30
GPUS = tuple(
    Device(index=at, kind="nvidia", model="Tesla V100-SXM2-32GB", uuid=f"GPU-{at}", memory_bytes=32 * GIB)
    for at in range(2)
)
OFFER = Offer(
    id="offer", version=1, node="node", node_name="attic", provider="p", state="open",
    ask=OfferAsk(
        region="DE", cpu_model="CPU", cpu_milli=4000, memory_bytes=16 * GIB, disk_bytes=100 * GIB,
        devices=GPUS, price_gpu=300_000, price_cpu=30_000,
    ),
    free_cpu_milli=4000, free_memory_bytes=16 * GIB, free_disk_bytes=100 * GIB, free_devices=GPUS,
)  # fmt: skip


def at(hours: float) -> datetime:
    return NOW + timedelta(hours=hours)


def job(
    name: str = "job",
    *,
    hours: float = 1.0,
    gpus: int = 1,
    cpu_milli: int = 1000,
    reserve: Reserve | None = None,
    max_cost: int | None = None,
) -> PendingJob:
    seconds = int(hours * 3600) if reserve is None else reserve.seconds
    spec = JobSpec(
        name=name,
        run="true",
        resources=Resources(gpu_count=gpus, cpu_milli=cpu_milli, memory_bytes=GIB, disk_bytes=GIB),
        limits=Limits(max_duration_seconds=seconds, max_cost=max_cost),
        reserve=reserve,
    )
    return PendingJob(id=name, project="r", spec=spec, epoch=0, available=10**12)


def window(start: float, hours: float) -> Reserve:
    return Reserve(start_at=at(start), seconds=int(hours * 3600))


def claim(start: float, end: float, *uuids: str, cpu_milli: int = 1000) -> Claim:
    return Claim(
        start_at=at(start),
        end_at=at(end),
        devices=uuids,
        cpu_milli=cpu_milli,
        memory_bytes=GIB,
        disk_bytes=GIB,
    )


def test_work_that_could_run_into_a_window_is_kept_off_its_devices() -> None:
    offer = replace(OFFER, reserved=(claim(4, 8, "GPU-0"),))

    long, short = job(hours=4), job(hours=4 - PREPARE_SECONDS / 3600)

    (part,) = instant_match([long], [offer], now=NOW).assignments
    assert part.devices == ("GPU-1",)
    (part,) = instant_match([short], [offer], now=NOW).assignments
    assert part.devices == ("GPU-0",)
    both = replace(long, spec=replace(long.spec, resources=replace(long.spec.resources, gpu_count=2)))
    (misfit,) = misfits(both.spec, offer, now=NOW)
    assert (misfit.dimension, misfit.now_only) == ("reserved", True)
    assert "16:00 UTC, when another's window begins" in misfit.available
    assert not instant_match([both], [offer], now=NOW).assignments


def test_cores_are_kept_as_devices_are() -> None:
    offer = replace(OFFER, reserved=(claim(1, 3, cpu_milli=2000), claim(2, 4, cpu_milli=1500)))

    assert left_until(offer, now=NOW, until=at(2)).free_cpu_milli == 2000
    assert left_until(offer, now=NOW, until=at(3)).free_cpu_milli == 500
    assert misfits(job(gpus=0, hours=5, cpu_milli=501).spec, offer, now=NOW)
    assert not misfits(job(gpus=0, hours=5, cpu_milli=500).spec, offer, now=NOW)
    assert not misfits(job(gpus=0, hours=0.5, cpu_milli=4000).spec, offer, now=NOW)


def test_windows_that_follow_each_other_do_not_add_up() -> None:
    offer = replace(OFFER, reserved=(claim(1, 2, cpu_milli=3000), claim(2, 3, cpu_milli=3000)))

    assert left_until(offer, now=NOW, until=at(4)).free_cpu_milli == 1000


def test_a_window_may_be_reserved_where_everything_is_busy_now() -> None:
    busy = replace(OFFER, free_devices=(), free_cpu_milli=0, taken=(claim(-1, 3, "GPU-0", "GPU-1"),))

    assert in_window(busy, window(3, 1), now=NOW).free_devices == GPUS
    assert not misfits(job(reserve=window(3, 1)).spec, busy, now=NOW)
    (misfit,) = misfits(job(reserve=window(2.5, 1)).spec, busy, now=NOW)
    assert (misfit.dimension, misfit.available) == ("gpu_count", "0 free of 2")


def test_a_window_is_held_against_the_offers_own_times() -> None:
    until = replace(OFFER, ask=replace(OFFER.ask, available_until_ms=int(at(5).timestamp() * 1000)), taken=())

    assert not misfits(job(reserve=window(4, 1)).spec, until, now=NOW)
    assert [m.dimension for m in misfits(job(reserve=window(4, 2)).spec, until, now=NOW)] == [
        "available_until"
    ]
    least = replace(OFFER, ask=replace(OFFER.ask, min_duration_seconds=7200), taken=())
    assert [m.dimension for m in misfits(job(reserve=window(4, 1)).spec, least, now=NOW)] == ["min_duration"]


def test_the_whole_window_is_quoted_and_held() -> None:
    asked = job(reserve=window(4, 3), max_cost=800_000)
    offer = replace(OFFER, taken=())

    dear = quote(asked.spec, [offer], available=10**9, currency="USD", now=NOW)
    assert [m.dimension for m in dear.offers[0].misfits] == ["max_cost"]
    found = quote(job(reserve=window(4, 3)).spec, [offer], available=10, currency="USD", now=NOW)
    assert (found.hold, found.affordable, found.offers[0].cost_max) == (900_000, False, 900_000)


@dataclass
class Machine:
    """One offer over time, by the rules of matching and booking; it remembers all that was given."""

    now: datetime = NOW
    leases: dict[str, tuple[Assignment, datetime, datetime]] = field(default_factory=dict)
    """Part, since when, and until when at the latest."""
    windows: dict[str, tuple[Assignment, Reserve]] = field(default_factory=dict)
    given: list[tuple[str, Assignment, datetime, datetime]] = field(default_factory=list)

    def offer(self) -> Offer:
        running = [part for part, _, _ in self.leases.values()]
        gone = {uuid for part in running for uuid in part.devices}
        return replace(
            OFFER,
            free_devices=tuple(each for each in GPUS if each.uuid not in gone),
            free_cpu_milli=OFFER.free_cpu_milli - sum(part.cpu_milli for part in running),
            free_memory_bytes=OFFER.free_memory_bytes - sum(part.memory_bytes for part in running),
            free_disk_bytes=OFFER.free_disk_bytes - sum(part.disk_bytes for part in running),
            reserved=tuple(_claimed(part, w.start_at, w.end_at) for part, w in self.windows.values()),
        )

    def match(self, asked: PendingJob) -> None:
        for part in instant_match([asked], [self.offer()], now=self.now).assignments:
            until = self.now + timedelta(seconds=asked.spec.limits.duration_seconds + PREPARE_SECONDS)
            self.leases[asked.id] = part, self.now, until
            self.given.append((asked.id, part, self.now, until))

    def book(self, asked: PendingJob) -> None:
        reserve = asked.spec.reserve
        assert reserve is not None
        claims = [_claimed(part, w.start_at, w.end_at) for part, w in self.windows.values()]
        claims += [_claimed(part, since, until) for part, since, until in self.leases.values()]
        offer = replace(self.offer(), taken=tuple(claims))
        if not misfits(asked.spec, offer, now=self.now):
            part, _ = assigned(asked, offer, now=self.now)
            self.windows[asked.id] = part, reserve

    def wait(self, hours: float) -> None:
        """To the next moments in their order: leases end, windows become runs."""
        then = self.now + timedelta(hours=hours)
        for name, (part, reserve) in sorted(self.windows.items(), key=lambda each: each[1][1].start_at):
            if reserve.start_at > then:
                continue
            self.leases = {n: each for n, each in self.leases.items() if each[2] > reserve.start_at}
            del self.windows[name]
            self.leases[name] = part, reserve.start_at, reserve.end_at
            self.given.append((name, part, reserve.start_at, reserve.end_at))
        self.now = then
        self.leases = {name: each for name, each in self.leases.items() if each[2] > then}


def _claimed(part: Assignment, start: datetime, end: datetime) -> Claim:
    return Claim(
        start_at=start,
        end_at=end,
        devices=part.devices,
        cpu_milli=part.cpu_milli,
        memory_bytes=part.memory_bytes,
        disk_bytes=part.disk_bytes,
    )


quarters = st.integers(1, 24).map(lambda each: each / 4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("match"), quarters, st.integers(0, 2), st.sampled_from([250, 1000, 3000])),
        st.tuples(st.just("book"), quarters, st.integers(0, 2), st.sampled_from([250, 1000, 3000]), quarters),
        st.tuples(st.just("wait"), quarters),
    ),
    max_size=25,
)


@given(steps)
def test_no_device_or_core_is_ever_two_runs_at_once(sequence: list[tuple[object, ...]]) -> None:
    machine = Machine()
    for number, (what, hours, *more) in enumerate(sequence):
        if what == "wait":
            machine.wait(float(hours))  # type: ignore[arg-type]
            continue
        gpus, cpu, name = int(more[0]), int(more[1]), f"job-{number}"  # type: ignore[call-overload]
        if what == "match":
            machine.match(job(name, hours=float(hours), gpus=gpus, cpu_milli=cpu))  # type: ignore[arg-type]
        else:
            ahead = (machine.now - NOW) / timedelta(hours=1) + float(more[2])  # type: ignore[arg-type]
            reserve = window(ahead, float(hours))  # type: ignore[arg-type]
            machine.book(job(name, gpus=gpus, cpu_milli=cpu, reserve=reserve))
    machine.wait(10_000)

    for name, part, start, end in machine.given:
        others = [g for g in machine.given if g[0] != name and g[2] < end and start < g[3]]
        assert not any(set(part.devices) & set(other.devices) for _, other, _, _ in others)
        beginning = [p.cpu_milli for _, p, s, e in machine.given if s <= start < e]
        assert sum(beginning) <= OFFER.ask.cpu_milli
