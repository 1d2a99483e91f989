"""Reports that come while others are applied are never left waiting."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from perak.server import committer


@pytest.mark.parametrize("at_once", [1, 3])
async def test_who_comes_as_a_group_ends_is_applied_too(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def apply_group(
        tx: object, *, group: Sequence[object], **_: object
    ) -> tuple[list[int], list[object]]:
        return [1] * len(group), []

    async def commit(action: Any) -> Any:
        await asyncio.sleep(0)
        return (await action(None))[0]

    monkeypatch.setattr(committer, "GROUPS_AT_ONCE", at_once)
    monkeypatch.setattr(committer, "apply_group", apply_group)
    apply = committer.ReportCommitter(cast(Any, commit), cast(Any, None))

    async def report(node: str) -> int:
        return sum([await apply(node, []) for _ in range(50)])

    async with asyncio.timeout(20):
        assert await asyncio.gather(*(report(f"node-{n}") for n in range(16))) == [50] * 16
