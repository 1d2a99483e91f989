"""One inspection of one device, from first to last check; whatever happens on the way is in the result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from perak.agent.inspect import compute, memory, prove, soak, tensor, throughput
from perak.agent.inspect.amd import Card as AmdCard
from perak.agent.inspect.nvml import Card as NvidiaCard
from perak.agent.inspect.nvml import CardLost, xid_check
from perak.agent.inspect.opencl import DeviceGone, Session, kernels_digest
from perak.agent.inspect.pci import link_checks
from perak.agent.inspect.pci import look as look_at_bus
from perak.agent.inspect.talk import Inspect
from perak.agent.inspect.targets import Target
from perak.domain.hardware import inspection as i
from perak.domain.hardware.identity import Measured, judge_identity
from perak.domain.hardware.inspection import Check, DeviceInspection, Mismatch, Sample, complete

SAMPLE_SECONDS = 0.2
"""How often link and clocks are looked at while the device works; a launch takes as long."""
PRODUCT_SIZES = {True: 128, False: 1024}
"""Of matrices, on a processor and on a GPU: a product takes some 10 ms on either."""
PRODUCTS_QUICK, PRODUCTS_FULL = 5, 50
LEFT_OUT = "left out of --quick"
REASON_CHARACTERS_MAX = 500

Say = Callable[[Check | tuple[str, ...]], None]
"""Told of every result, and before it of what is tried now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Where tests spoil what a device does, at its outermost edge: a bit, a product, the time it takes.

    Nothing of the product sets any of them.
    """

    memory: memory.Hook | None = None
    product: compute.Hook | None = None
    session: Callable[[Session], None] | None = None


NO_HOOKS = Hooks()


@dataclass(slots=True, kw_only=True)
class Inspection:
    """One device under inspection."""

    target: Target
    request: Inspect
    say: Say
    slowdown: tuple[float | None, str] = (None, "")
    """See `perak.domain.hardware.identity.Measured`."""
    hooks: Hooks = NO_HOOKS
    version: str = ""
    _checks: dict[str, Check] = field(default_factory=dict)
    _mismatches: list[Mismatch] = field(default_factory=list)
    _samples: list[Sample] = field(default_factory=list)
    _xids: tuple[int, ...] = ()
    _tested_bytes: int | None = None
    _bus_generations: list[int] = field(default_factory=list)
    _bus_widths: list[int] = field(default_factory=list)
    _gone: str | None = None
    _told_gone: bool = False

    def run(self) -> DeviceInspection:
        """Every check; never raises for what a device does."""
        started_at = _now_ms()
        self._gone = self.target.gone
        card = self.target.card
        with self._watching():
            self._try((), self._begin)
            if self.target.shown is not None and self._gone is None:
                self._over_opencl()
            elif self._gone is not None:
                self._lost(_OPENCL)
            else:
                why = "no OpenCL platform shows this device: install its driver's OpenCL"
                self._leave(_OPENCL, why)
            self._try(_LINK, self._links)
        if card is not None:
            self._try((i.XID,), self._events)
            self._try(_DRIVER, lambda: card.checks())
        self._take(self._identity())
        why = self._gone or self.target.why_no_card or "the driver does not tell"
        if self.request.kind == "quick":
            self._leave((kind.name for kind in i.CHECKS if not kind.quick), LEFT_OUT)
        self._leave((kind.name for kind in i.CHECKS if kind.soak), "only a soak tells")
        return DeviceInspection(
            identity=self.target.identity,
            kind=self.request.kind,
            trigger=self.request.trigger,
            started_at=started_at,
            ended_at=_now_ms(),
            checks=complete(self._checks.values(), why=why),
            mismatches=tuple(self._mismatches[: i.MISMATCHES_KEPT_MAX]),
            samples=tuple(self._samples),
            xids=self._xids,
            software=f"perak {self.version}, kernels {kernels_digest()}".strip(),
        )

    # Over OpenCL

    def _over_opencl(self) -> None:
        assert self.target.shown is not None
        try:
            session = Session(self.target.shown)
            if self.hooks.session is not None:
                self.hooks.session(session)
        except (DeviceGone, MemoryError) as error:
            self._leave(_OPENCL, f"the device could not be set to work: {error}"[:REASON_CHARACTERS_MAX])
            return
        free_bytes = self._free_bytes()  # With our own context there: it takes some hundred MiB.
        quick = self.request.kind == "quick"
        self._try(
            _THROUGHPUT,
            lambda: throughput.rates(
                session, run_seconds=self.request.timed_seconds, cpu_bytes_max=self.request.cpu_bytes_max
            ),
        )
        self._try((i.PROOF_RATE,), lambda: self._proof_rate(session))
        self._try(_MEMORY if not quick else _MEMORY_QUICK, lambda: self._memory(session, free_bytes))
        self._try(_COMPUTE, lambda: self._products(session))
        if not quick:
            self._try((i.TENSOR_BF16, i.TENSOR_FP16), lambda: tensor.rates(self.target))
        if self.request.kind == "soak":
            self._try(_SOAK, lambda: self._soak(session))

    def _free_bytes(self) -> int | None:
        try:
            return self.target.card.free_bytes if self.target.card is not None else None
        except CardLost:
            return None

    def _proof_rate(self, session: Session) -> Iterator[Check]:
        found = [prove.rate(session, seconds=self.request.timed_seconds * 2) / 1e9 for _ in range(3)]
        yield throughput.measured(i.PROOF_RATE, found)

    def _memory(self, session: Session, free_bytes: int | None) -> Iterator[Check]:
        most = self.request.cpu_bytes_max
        wanted = memory.wanted_bytes(session, free_bytes=free_bytes, cpu_bytes_max=most)
        buffers = memory.take(session, wanted)
        self._tested_bytes = sum(each.size_bytes for each in buffers)
        effort = memory.QUICK if self.request.kind == "quick" else memory.FULL
        if self.request.fade_seconds is not None and effort.fade_seconds is not None:
            effort = replace(effort, fade_seconds=self.request.fade_seconds)
        tests = memory.MemoryTests(session=session, buffers=buffers, effort=effort, hook=self.hooks.memory)
        try:
            yield from tests.run()
        finally:
            self._mismatches += tests.mismatches
        yield memory.share_check(session, buffers, free_bytes=free_bytes)
        yield tests.speed_check()

    def _products(self, session: Session) -> Iterator[Check]:
        size = self.request.product_size or PRODUCT_SIZES[session.shown.is_cpu]
        repeats = PRODUCTS_QUICK if self.request.kind == "quick" else PRODUCTS_FULL
        yield from compute.products(session, n=size, repeats=repeats, hook=self.hooks.product)

    def _soak(self, session: Session) -> Iterator[Check]:
        samples, checks = soak.soak(session, self.target.card, seconds=self.request.soak_seconds)
        self._samples += samples
        yield from checks

    # What the drivers and the bus say

    def _begin(self) -> Iterator[Check]:
        if self.target.card is not None:
            self.target.card.begin()
        yield from ()

    def _events(self) -> Iterator[Check]:
        assert self.target.card is not None
        xids = self.target.card.xids()
        self._xids = xids or ()
        yield xid_check(xids)

    def _links(self) -> Iterator[Check]:
        card = self.target.card
        generations = list(card.generations) if card is not None else []
        widths = list(card.widths) if card is not None else []
        yield from link_checks(
            self.target.identity,
            generations=generations + self._bus_generations,
            widths=widths + self._bus_widths,
        )

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Look at link and clocks while the device works; an idle link says nothing."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(SAMPLE_SECONDS):
                self._look()

        if self.target.identity.kind == "cpu":
            yield
            return
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _look(self) -> None:
        try:
            if self.target.card is not None:
                self.target.card.sample(0.0)
        except CardLost as error:
            self._gone = self._gone or f"the device was gone: {error}"[:REASON_CHARACTERS_MAX]
        there = look_at_bus(self.target.identity.pci_bus)
        if there is not None and there.generation_now and there.width_now:
            self._bus_generations.append(there.generation_now)
            self._bus_widths.append(there.width_now)

    def _identity(self) -> Iterable[Check]:
        identity = self.target.identity
        known = self.request.earlier_uuids
        earlier = (*known.get(self.target.place, ()), *known.get(identity.serial or "", ()))
        # Where others hold a part of it, what is left says nothing; and what is said to be held is no proof.
        held = None if self._value(i.PROCESSES) else self._tested_bytes
        return judge_identity(
            identity,
            Measured(
                memory_bytes=held,
                copy_gbs=self._value(i.COPY),
                fp32_tflops=self._value(i.FP32),
                slowdown=self.slowdown[0],
                slowdown_reason=self.slowdown[1],
            ),
            earlier_uuids=earlier,
        )

    def _value(self, name: str) -> float | None:
        found = self._checks.get(name)
        return found.value if found is not None else None

    # Results

    def _try(self, names: tuple[str, ...], checks: Callable[[], Iterable[Check]]) -> None:
        """Take what `checks` yields; what a device's end kept from being tried is told so.

        The check under way when the device went is the one that failed.
        """
        if self._gone is not None:
            self._lost(names)
            return
        self.say(names)
        try:
            self._take(checks())
        except (DeviceGone, CardLost) as error:
            self._gone = f"the device was gone: {error}"[:REASON_CHARACTERS_MAX]
            self._lost(names)
        except MemoryError as error:
            self._leave(names, f"no memory was left for it: {error}"[:REASON_CHARACTERS_MAX])

    def _lost(self, names: tuple[str, ...]) -> None:
        """The first check after the device was gone failed, the others did not run."""
        assert self._gone is not None
        first = next((name for name in names if name not in self._checks), None)
        if first is not None and not self._told_gone:
            self._told_gone = True
            unit = i.BY_NAME[first].unit
            self._take([Check(name=first, status="failed", reason=self._gone, unit=unit)])
        self._leave(names, self._gone)

    def _take(self, checks: Iterable[Check]) -> None:
        for check in checks:
            self._checks[check.name] = check
            self.say(check)

    def _leave(self, names: Iterable[str], why: str) -> None:
        for name in names:
            if name not in self._checks:
                self._take([Check(name=name, status="not_run", reason=why, unit=i.BY_NAME[name].unit)])


_THROUGHPUT = (i.COPY, i.FP32, i.FP16, i.FP64, i.TO_DEVICE, i.FROM_DEVICE)
_MEMORY = (
    i.MEMORY_MOVING_INVERSIONS, i.MEMORY_ADDRESS, i.MEMORY_RANDOM, i.MEMORY_CHECKERBOARD, i.MEMORY_BIT_FADE,
    i.MEMORY_BLOCK_MOVE, i.MEMORY_SHARE, i.MEMORY_SPEED,
)  # fmt: skip
_MEMORY_QUICK = tuple(name for name in _MEMORY if name != i.MEMORY_BIT_FADE)
_COMPUTE = (i.COMPUTE_FP32, i.COMPUTE_FP16, i.COMPUTE_FP64, i.COMPUTE_STABLE)
_SOAK = tuple(kind.name for kind in i.CHECKS if kind.soak)
_OPENCL = (*_THROUGHPUT, i.PROOF_RATE, *_MEMORY_QUICK, *_COMPUTE)
_LINK = (i.PCIE_GENERATION, i.PCIE_WIDTH)
_DRIVER = tuple(
    kind.name
    for kind in i.CHECKS
    if kind.name.startswith(("ecc.", "driver.", "nvlink.")) or kind.name == i.PCIE_REPLAYS
)


def several(found: list[Target]) -> dict[str, tuple[float | None, str]]:
    """By place, how much each GPU is slowed by the others at work; only where there are several."""
    gpus = [each for each in found if each.shown is not None and not each.shown.is_cpu]
    without = [each for each in found if each.shown is None]
    if len(gpus) + len(without) < 2:
        return {}
    if without:
        why = f"{len(without)} of {len(found)} devices are not shown by OpenCL"
        return {each.place: (None, why) for each in found}
    try:
        sessions = [Session(each.shown) for each in gpus if each.shown is not None]
        factors = prove.slowdown(sessions)
    except (DeviceGone, MemoryError) as error:
        return {each.place: (None, f"not all could be set to work at once: {error}") for each in gpus}
    why = f"{len(gpus)} devices at work at once, to each alone"
    return {each.place: (factor, why) for each, factor in zip(gpus, factors, strict=True)}


Card = NvidiaCard | AmdCard


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
