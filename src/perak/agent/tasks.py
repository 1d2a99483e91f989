"""The agent's tasks and threads. What fails ends the agent: nothing fails unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_T = TypeVar("_T")

QUICK_THREADS = 4
"""For folders, mounts and processes: each takes milliseconds, most of them in the kernel."""


class Tasks:
    """Work of one event loop, and two pools of threads for what blocks."""

    def __init__(self, *, slow_threads_max: int) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._failed = asyncio.Event()
        self._error: BaseException | None = None
        self._quick = ThreadPoolExecutor(QUICK_THREADS, "quick")
        self._slow = ThreadPoolExecutor(slow_threads_max, "slow")

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        """A task that failed is our bug, or a refusal: either ends the agent."""
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self._error is None:
            self._error = error
            self._failed.set()

    async def quick(self, call: Callable[[], _T]) -> _T:
        """The result of what takes milliseconds, from a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, call)

    async def slow(self, call: Callable[[], _T]) -> _T:
        """The result of what may take minutes, from a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._slow, call)

    async def until(self, stop: asyncio.Event) -> None:
        """Until asked to stop, or a task of ours failed; its error is raised."""
        waiting = [asyncio.ensure_future(each.wait()) for each in (stop, self._failed)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
        if self._error is not None:
            raise self._error

    async def cancel(self) -> None:
        """End every task."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def shut(self) -> None:
        """Let the threads go once what they do is done."""
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._slow.shutdown(wait=False, cancel_futures=True)
