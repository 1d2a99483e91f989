"""Reports the node's own health: its temperatures, and what drivers tell of their devices."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from perak.agent.health import FaultWatch, HealthWatch
from perak.agent.probe.temperatures import Thermometer
from perak.agent.settings import Limits
from perak.agent.tasks import Tasks
from perak.domain.report import Body

log = logging.getLogger(__name__)


async def watch_health(
    *,
    tasks: Tasks,
    thermometer: Thermometer,
    limits: Limits,
    report: Callable[[Body], object],
    on_fault: Callable[[str], object],
) -> None:
    """Report errors and temperatures for ever; `on_fault` is told each device (UUID) that had an error."""
    watch = HealthWatch(
        every_seconds=limits.health_report_seconds,
        every_seconds_hot=limits.health_report_hot_seconds,
    )
    faults = FaultWatch()
    loop = asyncio.get_running_loop()
    while True:
        for fault in faults.take(await tasks.quick(thermometer.faults), now=loop.time()):
            log.warning("the driver told of a device: %s", fault)
            report(fault)
            on_fault(fault.device)
        sensors = await tasks.quick(thermometer.read)
        if (health := watch.take(sensors, now=loop.time())) is not None:
            report(health)
        await asyncio.sleep(limits.health_check_seconds)
