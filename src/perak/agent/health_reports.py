"""Reports the node's own health: its temperatures, and what drivers tell of their devices."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from perak.agent.health import FaultWatch, HealthWatch
from perak.agent.probe.temperatures import Thermometer
from perak.agent.settings import Limits
from perak.agent.tasks import Tasks
from perak.domain.report import Body, Faulted

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class HealthReports:
    """Asks the sensors and drivers of one node.

    `on_fault` is given every fault that is told, `on_reported` those among them that were worth a report.
    """

    tasks: Tasks
    thermometer: Thermometer
    limits: Limits
    report: Callable[[Body], object]
    on_fault: Callable[[Faulted], object]
    on_reported: Callable[[Faulted], object]
    _faults: FaultWatch = field(default_factory=FaultWatch)

    async def watch(self) -> None:
        """Report faults and temperatures for ever."""
        watch = HealthWatch(
            every_seconds=self.limits.health_report_seconds,
            every_seconds_hot=self.limits.health_report_hot_seconds,
        )
        loop = asyncio.get_running_loop()
        while True:
            await self.look_for_faults()
            sensors = await self.tasks.quick(self.thermometer.read)
            if (health := watch.take(sensors, now=loop.time())) is not None:
                self.report(health)
            await asyncio.sleep(self.limits.health_check_seconds)

    async def look_for_faults(self) -> None:
        """Ask the drivers now: also when a run with a device ends, as they may know whose doing it was."""
        told = await self.tasks.quick(self.thermometer.faults)
        for fault in self._faults.take(told, now=asyncio.get_running_loop().time()):
            log.warning("the driver told of a device: %s", fault)
            self.report(fault)
            self.on_reported(fault)
        for fault in told:
            self.on_fault(fault)
