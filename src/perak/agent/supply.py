"""What this node has to offer now: the machine, its sandbox tiers, its fit devices, the provider's file."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from perak.agent import provider as providers
from perak.agent.brought import Brought
from perak.agent.inspect.care import FILE_NAME as DEVICES_FILE_NAME
from perak.agent.inspect.care import Care
from perak.agent.probe.ask import build_ask, unpriced
from perak.agent.probe.machine import Machine, probe_machine
from perak.agent.probe.nvidia import Nvidia
from perak.agent.probe.tiers import END_SECONDS, Tiers
from perak.agent.provider import Provider
from perak.agent.room import Room
from perak.agent.sandbox import Sandbox, TierReport
from perak.agent.settings import AgentSettings
from perak.agent.work import EnvironmentMaker
from perak.domain.offer import Device, OfferAsk
from perak.domain.report import Body
from perak.domain.units import parse_price

if TYPE_CHECKING:
    from perak.agent.probe.fitness import Fitness

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Supply:
    """What this node offers now: the machine as it was at the start, the provider's file as it is."""

    settings: AgentSettings
    returns: bool = False
    """Whether this node has worked here before: then it comes back, with or without anything to offer."""
    nvidia: Nvidia | None = None
    tiers: Tiers | None = None
    _fitness: Fitness | None = None
    _check: threading.Thread | None = None
    _care: Care | None = None
    _seen: dict[str, Device] = field(default_factory=dict)
    """Devices as the driver last showed them, by UUID."""
    _torch_variants: tuple[str, ...] = ()
    _brought: Brought | None = None
    _machine: Machine | None = None
    _tier: TierReport | None = None
    _pythons: tuple[str, ...] = ()
    _file: tuple[int, Provider] | None = field(default=None)
    """(time of its last change, content)"""

    def complete(
        self, sandbox: Sandbox, tier: TierReport, environments: EnvironmentMaker | None, brought: Brought
    ) -> None:
        """Take in what the machine has, and try every device in the sandbox, which takes some seconds."""
        self._brought = brought
        self._machine = self._probe()
        self.tiers = Tiers(sandbox, wanted=self.settings.tiers)
        self.tiers.begin()
        self._tier = tier
        self._pythons = environments.versions if environments is not None else ()
        self._torch_variants = environments.torch_variants if environments is not None else ()
        self.nvidia = Nvidia.open()
        if self.nvidia is not None:
            from perak.agent.environments.pythons import interpreters
            from perak.agent.probe.fitness import Fitness

            found = interpreters()
            self._fitness = Fitness(
                sandbox=sandbox, nvidia=self.nvidia, interpreter=found[0] if found else None
            )
            self._fitness.check(each.device for each in self.nvidia.devices)

    def end(self) -> None:
        """Break off the checks of tiers and devices; returns when their runs are cleared away."""
        if self.tiers is not None:
            self.tiers.end()
        if self._check is not None:
            self._check.join(END_SECONDS)

    def ask(self) -> OfferAsk:
        """The ask of now. Raises NothingToOffer or ProviderFileError."""
        assert self._machine is not None
        assert self._tier is not None
        devices, left_out = self._devices()
        provider = self.provider()
        full = Room.of(self.settings.state_dir).keep()
        if self._machine.disk_bytes <= provider.reserve_disk_bytes:
            self._machine = self._probe()
        machine = self._machine
        if self.returns and machine.disk_bytes <= provider.reserve_disk_bytes:
            # It may have runs, and evidence to report: that comes before the offer.
            full = full or f"the disk of {self.settings.state_dir} has no more free than is reserved"
            machine = replace(machine, disk_bytes=provider.reserve_disk_bytes + 1)
        ask = build_ask(
            machine,
            provider,
            devices=devices,
            tier=self._tier,
            pythons=self._pythons,
            torch_variants=self._torch_variants,
            takes=self._brought.takes if self._brought is not None else (),
            tiers=self.tiers.offered() if self.tiers is not None else (),
            left_out=left_out
            | (self.tiers.left_out() if self.tiers is not None else {})
            | ({} if full is None else {"disk": full}),
        )
        return ask if full is None else replace(ask, devices=(), price_cpu=None, price_gpu=None)

    def _probe(self) -> Machine:
        """The machine now. What the caches may still grow by is no job's scratch."""
        machine = probe_machine(self.settings.state_dir)
        to_grow_bytes = self._brought.to_grow_bytes if self._brought is not None else 0
        return replace(machine, disk_bytes=max(0, machine.disk_bytes - to_grow_bytes))

    def _devices(self) -> tuple[list[Device], dict[str, str]]:
        """(those that are fit, why the others are not); a new one is checked in the background.

        One that a run has stays listed though the driver has lost it: the run's receipt is yet to name it.
        """
        if self.nvidia is None or self._fitness is None:
            return [], {}
        self.nvidia.reprobe()
        devices = [each.device for each in self.nvidia.devices]
        self._seen |= {each.uuid: each for each in devices}
        suspects: dict[str, str] = {}
        if self._care is not None:
            there = {each.uuid for each in devices}
            devices += [self._seen[uuid] for uuid in self._care.busy() if uuid in self._seen.keys() - there]
            suspects = self._care.suspects()
        idle = self._check is None or not self._check.is_alive()
        if idle and self._fitness.is_due(devices):
            self._check = threading.Thread(target=self._fitness.check, args=(devices,), daemon=True)
            self._check.start()
        unfit = self._fitness.unfit(devices)
        unfit |= {each.uuid: suspects[each.uuid] for each in devices if each.uuid in suspects}
        return [each for each in devices if each.uuid not in unfit], unfit

    def provider(self) -> Provider:
        """The provider's file, read again when it changed, with what the flags say on top."""
        path = self.settings.provider_file
        found = Provider()
        if path is not None:
            try:
                changed = path.stat().st_mtime_ns
            except OSError as error:
                raise providers.ProviderFileError(f"{path} can't be read: {error.strerror}") from None
            if self._file is None or self._file[0] != changed:
                self._file = (changed, providers.read(path))
            found = self._file[1]
        return _with_flags(found, self.settings)

    def make_care(self, report: Callable[[Body], object], busy: Callable[[], set[str]]) -> Care:
        """Who looks after the devices, and says which of them are not to be offered for now."""
        self._care = Care(
            path=self.settings.state_dir / DEVICES_FILE_NAME,
            limits=self.settings.limits,
            report=report,
            devices=self.uuids,
            busy=busy,
        )
        return self._care

    def uuids(self) -> tuple[str, ...]:
        """Every device there is, fit or not."""
        return () if self.nvidia is None else tuple(each.device.uuid for each in self.nvidia.devices)

    def tell(self) -> None:
        """Say what the machine has and does not offer."""
        devices = [each.device for each in self.nvidia.devices] if self.nvidia is not None else []
        for line in unpriced(self.provider(), devices):
            log.warning(line)


def _with_flags(provider: Provider, settings: AgentSettings) -> Provider:
    def price(text: str | None, default: int | None) -> int | None:
        return default if text is None else parse_price(text)

    return replace(
        provider,
        name=settings.name or provider.name,
        region=providers.region(settings.region) if settings.region else provider.region,
        price_cpu=price(settings.price_cpu, provider.price_cpu),
        price_gpu=price(settings.price_gpu, provider.price_gpu),
    )
