"""What a run did not leave, what of it can't be taken, and what is not known, is told as such."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from integration.app.conftest import RENTER, World
from integration.app.test_way_of_a_job import exited, metered, started
from perak.adapters.db.views.jobs import get_job_detail, outputs_of
from perak.app import reports
from perak.domain.job import JobSpec
from perak.domain.report import Metered, OutputBlob, Report, RunExited
from perak.wire.api import JobDetail
from perak.wire.session import REPORT_TYPE, encode_report
from perak.wire.signing import SigningKey, sign

KEY = SigningKey.generate()
DIGEST = "sha256:" + "0" * 64


async def run(world: World, *, names: tuple[str, ...] = ("out/", "never.txt"), **end: Any) -> JobDetail:
    """Run a job that names outputs to its end, with evidence as nodes sign it; the job as it is shown."""
    await world.fund(10_000_000)
    job = await world.submit(JobSpec(name="j", run="x", outputs=names))
    await world.clear()
    lease = await world.lease(job)
    begin = world.now_ms
    await world.report(started(lease, begin))
    world.wait(10)
    await signed(world, replace(metered(lease, world.now_ms), memory_bytes=end.pop("memory_bytes", 5)))
    live = (await shown(world, job)).runs[0]
    assert (live.memory_bytes, live.memory_peak_bytes) == (end.pop("live", 5), None)
    await signed(world, exited(lease, begin=begin, end=world.now_ms, **end))
    return await shown(world, job)


async def signed(world: World, body: RunExited | Metered) -> None:
    payload = encode_report(seq=world.seq + 1, node=world.node, at=world.now_ms, body=body)
    jws = sign(KEY, payload, typ=REPORT_TYPE)
    report = Report(seq=world.seq + 1, node=world.node, at=world.now_ms, body=body, jws=jws)
    async with world.db.transaction() as tx:
        world.seq, _ = await reports.apply_reports(
            tx, node_id=world.node, reports=[report], context=world.context, now=world.now
        )


async def shown(world: World, job: str) -> JobDetail:
    async with world.db.connection() as connection:
        detail = await get_job_detail(connection, job, project=RENTER.project)
    assert detail is not None
    return detail


def warnings(detail: JobDetail) -> list[str]:
    return [event.detail for event in detail.events if event.kind == "warning"]


async def test_what_is_missing_and_what_is_left_out_is_told_and_shown(world: World) -> None:
    skipped = ("out/pipe: a pipe",)
    blob = OutputBlob(digest=DIGEST, size_bytes=1, file_count=1, missing=("never.txt",), skipped=skipped)
    detail = await run(world, outputs=blob)
    assert warnings(detail) == ["outputs not found: never.txt", "outputs left out: out/pipe: a pipe"]
    assert detail.runs[0].outputs_missing == ["never.txt"]
    assert detail.runs[0].outputs_skipped == ["out/pipe: a pipe"]
    assert detail.runs[0].memory_peak_bytes == 10**6


async def test_a_job_that_leaves_nothing_is_told_so_and_a_failed_one_is_not(world: World) -> None:
    assert warnings(await run(world, outputs=None)) == ["outputs not found: out/, never.txt"]
    assert warnings(await run(world, outputs=None, cause="cancelled", exit_code=None)) == []
    assert warnings(await run(world, names=(), outputs=None)) == []


async def test_a_job_that_left_nothing_that_can_be_taken_is_told_why(world: World) -> None:
    left = OutputBlob(digest=None, size_bytes=0, file_count=0, missing=("out/",), skipped=("out/p: a pipe",))
    detail = await run(world, outputs=left)
    assert warnings(detail) == ["outputs not found: out/", "outputs left out: out/p: a pipe"]
    assert (detail.has_outputs, detail.runs[0].outputs_skipped) == (False, ["out/p: a pipe"])
    async with world.db.connection() as connection:
        assert await outputs_of(connection, detail.id) is None


async def test_memory_that_is_not_known_is_none_and_not_zero(world: World) -> None:
    detail = await run(world, names=(), memory_bytes=None, live=None, memory_peak_bytes=None)
    assert (detail.runs[0].memory_bytes, detail.runs[0].memory_peak_bytes) == (None, None)
    assert (await run(world, names=(), memory_peak_bytes=0)).runs[0].memory_peak_bytes == 0
