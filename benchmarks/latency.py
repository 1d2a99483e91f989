"""Submit to first log line, and to settled, of `echo hi`, one after the other, through a warm client."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from benchmarks.local import perak_up
from perak import Client
from perak.client.events import End, Log

WARM_UP = 3
TIMES = 30
JOB = {"name": "hi", "run": "echo hi"}


def measure() -> Iterator[tuple[str, float, str]]:
    with perak_up() as local, Client(url=local.url, api_key=local.api_key) as client:
        timings = [_one(client) for _ in range(WARM_UP + TIMES)][WARM_UP:]
    first, settled = zip(*timings, strict=True)
    yield "first_line_p50_s", round(statistics.median(first), 4), "s"
    yield "first_line_max_s", round(max(first), 4), "s"
    yield "settled_p50_s", round(statistics.median(settled), 4), "s"
    yield "settled_max_s", round(max(settled), 4), "s"


def _one(client: Client) -> tuple[float, float]:
    begin = time.perf_counter()
    job = client.submit(JOB)
    first = 0.0
    for event in client.events(job.id):
        if isinstance(event, Log) and not first:
            first = time.perf_counter() - begin
        if isinstance(event, End):
            assert event.job.state == "succeeded", event.job
    settled = time.perf_counter() - begin
    assert first, "the job's line was never seen"
    assert list(client.receipts(job.id)), "a settled job has its receipt"
    return first, settled
