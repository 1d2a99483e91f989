"""The steps of one run that take time: each a task that ends in an event of the core."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from perak.agent.core import Core
from perak.agent.events import Event, Failed, LogDrained, OutputsPacked, PrepareDone, Released
from perak.agent.inspect.care import Care
from perak.agent.journal import Journal
from perak.agent.logs import Logs
from perak.agent.run_reports import RunReports
from perak.agent.sandbox import Sandbox
from perak.agent.settings import Limits
from perak.agent.tasks import Tasks
from perak.agent.work import Work, WorkFailed
from perak.domain.report import OutputBlob
from perak.wire.session import LeaseOrder

log = logging.getLogger(__name__)

RELEASE_TRIES = 30
RELEASE_RETRY_SECONDS = 1.0
"""A run that was killed is gone within a second, unless its disk hangs."""


@dataclass(slots=True, kw_only=True)
class Steps:
    """What the core asks for, done. `feed` takes the events; `observe` looks at a run now, `look_for_faults`
    at the devices."""

    core: Core
    tasks: Tasks
    work: Work
    journal: Journal
    sandbox: Sandbox
    limits: Limits
    logs: Logs
    reports: RunReports
    care: Care | None
    feed: Callable[[Event], None]
    observe: Callable[[str], None]
    look_for_faults: Callable[[], Awaitable[None]]

    async def prepare(self, order: LeaseOrder) -> None:
        """Folder, environment, image, inputs and work folder; PrepareDone or Failed."""
        slow = _slow_parts(order)
        if slow:
            self.reports.preparing(order, slow[0])
        loop = asyncio.get_running_loop()

        def say(line: str) -> None:
            loop.call_soon_threadsafe(self.logs.say, order, line)

        in_thread = self.tasks.slow if slow else self.tasks.quick
        try:
            await in_thread(
                lambda: self.work.prepare(order, say=say, is_wanted=lambda: self._is_to_run(order))
            )
        except WorkFailed as error:
            self.feed(error.event(order.run))
        except Exception as error:
            self.feed(_unforeseen(order.run, error))
        else:
            self.feed(PrepareDone(run=order.run))

    async def start(self, order: LeaseOrder) -> None:
        """The sandbox; StatusChanged or Failed."""
        run = order.run
        in_thread = self.tasks.slow if order.secrets else self.tasks.quick
        try:
            if self.care is not None:
                await self.care.before_run(order.devices)
            await in_thread(lambda: self.work.start(order))
        except WorkFailed as error:
            self.feed(error.event(run))
        except (OSError, RuntimeError, LookupError) as error:
            self.feed(Failed(run=run, cause="sandbox", detail=f"the sandbox did not start: {error}"))
        except Exception as error:
            self.feed(_unforeseen(run, error))
        else:
            self.observe(run)

    async def stop(self, run: str, cause: str) -> None:
        """Ask a run to end, and see to it; StatusChanged."""
        log.info("run %s is stopped: %s", run, cause)
        grace = self.limits.stop_grace_seconds
        try:
            await self.tasks.quick(lambda: self.sandbox.stop(run, reason=cause, grace_seconds=grace))
        except (OSError, RuntimeError, LookupError) as error:
            log.warning("run %s could not be asked to stop: %s", run, error)
        self.observe(run)

    async def drain_log(self, order: LeaseOrder) -> None:
        """The rest of the log, and what befell its devices until now; DeviceFaulted, LogDrained."""
        await self.logs.drain(order)
        if order.devices:
            await self.look_for_faults()
        self.feed(LogDrained(run=order.run))

    async def collect(self, order: LeaseOrder) -> None:
        """Pack the outputs and bring them to the exchange; OutputsPacked."""
        outputs: OutputBlob | None = None
        failure = None
        try:
            outputs = await self.tasks.slow(
                lambda: self.work.collect(order, is_wanted=lambda: self._is_wanted(order))
            )
        except WorkFailed as error:
            failure = error.detail
        except Exception as error:
            failure = _unforeseen(order.run, error).detail
        self.feed(OutputsPacked(run=order.run, outputs=outputs, failure=failure))

    async def release(self, run: str) -> None:
        """Delete the folder of a run, then forget it; Released, unless it stays until the next start."""
        if await self._clear(run):
            self.journal.release(run)
            self.logs.forget(run)
            self.reports.forget(run)
            self.feed(Released(run=run))
        else:
            log.error("run %s could not be cleared away; the next start of the agent tries again", run)

    async def _clear(self, run: str) -> bool:
        for _ in range(RELEASE_TRIES):
            try:
                await self.tasks.quick(lambda: self.sandbox.release(run))
            except KeyError:
                return True  # It never had a folder.
            except (OSError, RuntimeError) as error:
                log.warning("run %s can't be cleared away yet: %s", run, error)
                with contextlib.suppress(OSError, RuntimeError, LookupError):
                    self.sandbox.stop(run, reason="fenced", grace_seconds=0)
                await asyncio.sleep(RELEASE_RETRY_SECONDS)
            else:
                return True
        return False

    def _is_wanted(self, order: LeaseOrder) -> bool:
        """Whether the exchange, as far as is known, still waits for this run's outputs."""
        desired = self.core.desired
        return not self.core.draining and (desired is None or order.run in desired)

    def _is_to_run(self, order: LeaseOrder) -> bool:
        """Whether the run is not stopped yet; without an exchange nobody stops it."""
        facts = self.core.runs.get(order.run)
        return facts is not None and facts.stop_cause is None


def _slow_parts(order: LeaseOrder) -> list[str]:
    """What takes long to get ready, the longest first, in words."""
    parts = [
        (order.image, "the image"),
        (order.inputs, "the inputs"),
        (order.python_version, "the Python environment"),
        (order.workdir_digest, "the work folder"),
    ]
    return [words for part, words in parts if part]


def _unforeseen(run: str, error: Exception) -> Failed:
    """A bug of ours that one job met: it must not take the agent down, at every new start again."""
    log.error("run %s met a bug of the agent", run, exc_info=error)
    return Failed(run=run, cause="sandbox", detail=f"a bug of the agent: {error!r}")
