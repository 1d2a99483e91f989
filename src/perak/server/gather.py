"""What is asked for while the same is done for others is done for all who wait, in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Gather(Generic[K, V]):
    """Calls `work` with what waits, at most `most` at a time, one call after the other.

    Whoever comes alone waits for nobody. `work` gives one answer for each, in order; an answer that is an
    exception is raised where it was asked for, and an error of `work` itself wherever it was.
    """

    def __init__(
        self, work: Callable[[Sequence[K]], Awaitable[Sequence[V | Exception]]], *, most: int
    ) -> None:
        self._work = work
        self._most = most
        self._waiting: list[tuple[K, asyncio.Future[V]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, item: K) -> V:
        answer: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._worker is None:
            self._worker = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[: self._most]
                del self._waiting[: self._most]
                await self._answer(batch)
        finally:
            self._worker = None

    async def _answer(self, batch: list[tuple[K, asyncio.Future[V]]]) -> None:
        answers: Sequence[V | Exception]
        try:
            answers = await self._work([item for item, _ in batch])
        except Exception as error:
            answers = [error] * len(batch)
        for (_, waiting), answer in zip(batch, answers, strict=True):
            if waiting.done():
                continue  # Whoever asked is gone.
            if isinstance(answer, Exception):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)
