"""The grid's hours on real receipts, budgets of carbon that are kept, and claims that light contradicts."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from server_world import (
    OFFER,
    PATIENCE_SECONDS,
    Running,
    ScriptedNode,
    exited,
    now_ms,
    running_exchange,
    started,
)

from perak.domain import whereabouts
from perak.domain.carbon.intensity import yearly_intensity
from perak.domain.report import Metered, OutputBlob
from perak.server import sightings
from perak.wire import session as wire
from perak.wire.receipts import verify_receipt

SYDNEY = "{latitude: -33.87, longitude: 151.21}"
INTENSITY = 100.0


@pytest.fixture
def grid_folder(tmp_path: Path) -> Path:
    """A file of hours: a constant, two days back and one ahead."""
    at = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    rows = [f"{at + timedelta(hours=h):%Y-%m-%dT%H:00:00Z},{INTENSITY}" for h in range(-48, 24)]
    (tmp_path / "de.csv").write_text("time,DE\n" + "\n".join(rows) + "\n")
    return tmp_path


@pytest.fixture
async def with_grid(database_url: str, grid_folder: Path) -> AsyncIterator[Running]:
    file = grid_folder / "grid.yaml"
    file.write_text(f"place: {SYDNEY}\nzones:\n  DE: {{feed: file, path: de.csv}}\n")
    async with running_exchange(database_url, grid_folder / "exchange", grid_file=file) as running:
        await until(lambda: _has_zone(running))
        yield running


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (found := await condition()):
            await asyncio.sleep(0.05)
    return found


async def _has_zone(running: Running) -> bool:
    zone = running.services.context.grid.now.zone("DE")
    return zone.measured is not None


async def opened(running: Running, *, region: str = "DE") -> ScriptedNode:
    node = await ScriptedNode.enrol(running, name=f"in-{region.lower()}")
    await node.open(offer=replace(OFFER, region=region))
    return node


def metered(order: wire.LeaseOrder, joules: float, *, until: int, since: int) -> Metered:
    return Metered(
        run=order.run,
        lease=order.lease,
        epoch=order.epoch,
        until=until,
        cpu_seconds=1.0,
        memory_bytes=None,
        energy_joules=joules,
        energy_method="model: test",
        energy_hours=((since // 3_600_000, joules),),
        energy_samples=3,
    )


async def test_a_receipt_counts_the_hour_in_which_it_ran(with_grid: Running) -> None:
    node = await opened(with_grid)
    job = await with_grid.submit()
    order = await node.lease_of(job)
    at = now_ms() - 1000
    ended = exited(
        order,
        started_at=at,
        energy_joules=3.6e6,
        energy_hours=((at // 3_600_000, 3.6e6),),
        energy_samples=9,
        energy_modelled=("cpu",),
    )
    await node.report(started(order, at=at), ended)
    (run,) = (await with_grid.job(job))["runs"]
    text = (await with_grid.client.get(f"/v1/receipts/{run['receipt']}")).json()
    verified = verify_receipt(json.dumps(text))
    assert verified.valid, verified.checks
    receipt = verified.receipt
    assert receipt.carbon is not None
    assert receipt.carbon.grams_per_kwh == INTENSITY
    assert receipt.carbon.method == "hourly average: measured"
    assert receipt.carbon.region_evidence == "declared"
    assert receipt.energy is not None
    assert (receipt.energy.samples, receipt.energy.modelled) == (9, ("cpu",))
    assert receipt.embodied is not None
    assert receipt.sci is not None
    assert receipt.sci.low > receipt.carbon.grams
    await node.close()


async def test_a_carbon_budget_is_kept_and_warned_of(with_grid: Running) -> None:
    """A kilowatt-hour is 156 g here, so two of them are the budget."""
    node = await opened(with_grid)
    job = await with_grid.submit(limits={"max_carbon": "312g"})
    order = await node.lease_of(job)
    alone = 312 / (yearly_intensity("DE").grams_per_kwh * 1.56) * 3.6e6
    assert order.joules_max == pytest.approx(alone), "all of the budget, in the worst hour"
    # The run began an hour ago by the node's clock, so that each reading is small beside what was before.
    at = now_ms() - 3_600_000
    hour = at // 3_600_000
    await node.report(started(order, at=at))
    for kwh, seconds in ((0.8, 600), (1.2, 1200), (1.5, 1800), (1.61, 2400)):
        await node.report(metered(order, kwh * 3.6e6, until=at + seconds * 1000, since=at))
    detail = await with_grid.job(job)
    (warned,) = [event for event in detail["events"] if "max_carbon" in event["detail"]]
    assert (
        warned["detail"]
        == "251 g of 312 g CO2e are emitted; the job is stopped before it passes its max_carbon"
    )
    counted_anew = await node.until(
        lambda: next((each.joules_max for each in node.leases if each.joules_max != order.joules_max), None)
    )
    assert 1.2 * 3.6e6 < counted_anew < 2 * 3.6e6, "from what was emitted, not from all in the worst hour"

    await node.report(metered(order, 1.9 * 3.6e6, until=at + 3000 * 1000, since=at))
    stop = await node.until(
        lambda: next((each for each in node.leases if each.job == job and each.wanted == "stop"), None)
    )
    assert stop.stop_cause == "max_carbon"
    joules = 1.95 * 3.6e6
    await node.report(
        exited(
            order, started_at=at, exit_code=None, cause="max_carbon", energy_joules=joules,
            energy_hours=((hour, joules),), energy_samples=5,
        )
    )  # fmt: skip
    detail = await with_grid.job(job)
    assert (detail["state"], "max_carbon" in detail["reason"]) == ("failed", True)
    (run,) = detail["runs"]
    receipt = (await with_grid.client.get(f"/v1/receipts/{run['receipt']}")).json()["receipt"]
    assert receipt["carbon"]["grams"] < 312
    assert receipt["cause"] == "max_carbon"
    await node.close()


async def test_a_budget_that_can_not_be_kept_is_refused_with_the_smallest_that_can(
    with_grid: Running,
) -> None:
    """Two cores of 12 W for 40 s, at 100 g/kWh: some 40 mg."""
    node = await opened(with_grid)
    await until(lambda: _offers(with_grid))

    def job(budget: str) -> dict[str, Any]:
        limits, resources = {"max_carbon": budget}, {"cpu": 2, "memory": "1GB"}
        return {"name": "t", "run": "true", "limits": limits, "resources": resources}

    refused = await with_grid.client.post("/v1/jobs", json={"job": job("0.001g")})
    assert refused.status_code == 400, refused.text
    problem = refused.json()
    assert problem["code"] == "max_carbon_too_small"
    smallest = problem["detail"].partition("can be kept now is ")[2]
    assert smallest == "0.043 g"
    kept = await with_grid.client.post("/v1/jobs", json={"job": job(smallest.replace(" ", ""))})
    assert kept.status_code == 201, kept.text
    assert (await node.lease_of(kept.json()["id"])).joules_max is not None
    await node.close()


async def test_moved_data_is_a_line_of_its_own_on_the_receipt(with_grid: Running) -> None:
    node = await opened(with_grid)
    data = b"x" * 5_000
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    await with_grid.client.put(f"/v1/blobs/{digest}", content=data)
    job = {"name": "t", "run": "true", "image": f"debian@sha256:{'0' * 64}"}
    answer = await with_grid.client.post("/v1/jobs", json={"job": job, "workdir": digest})
    order = await node.lease_of(answer.json()["id"])
    at = now_ms() - 1000
    outputs = OutputBlob(digest=None, size_bytes=2_000, file_count=1)
    ended = exited(order, started_at=at, outputs=outputs, energy_hours=((at // 3_600_000, 1.5),))
    await node.report(started(order, at=at), ended)
    (run,) = (await with_grid.job(order.job))["runs"]
    text = (await with_grid.client.get(f"/v1/receipts/{run['receipt']}")).json()
    verified = verify_receipt(json.dumps(text))
    assert verified.valid, verified.checks
    moved, carbon = verified.receipt.moved, verified.receipt.carbon
    assert moved is not None
    assert carbon is not None
    assert (moved.received_bytes, moved.sent_bytes, moved.run_bytes) == (5_000, 2_000, 0)
    assert moved.uncounted == ("the image",)
    assert moved.high_grams == pytest.approx(7e-6 * 0.06 * INTENSITY, abs=1e-6)
    assert carbon.grams == pytest.approx(1.5 / 3.6e6 * INTENSITY * 1.56, abs=1e-6), "no part of the run's own"
    await node.close()


async def _offers(running: Running) -> bool:
    return bool((await running.client.get("/v1/offers")).json()["items"])


async def test_a_claim_that_light_contradicts_gets_no_work(
    with_grid: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loopback answers within a millisecond or a few: such a node is near Sydney, and not in Germany."""
    # On a machine that is busy with others most answers are late; one quick one is enough, and here a fifth
    # of a second is quick. So the loop has nothing else to do after a beat, which brings a probe: offers are
    # read before it.
    monkeypatch.setattr(sightings, "PROBES_EACH_SESSION", 10_000)
    monkeypatch.setattr(whereabouts, "BOUND_KM_MAX", 20_000.0)
    node, honest = await opened(with_grid), await opened(with_grid, region="AU")

    async def refused() -> Any:
        offers = (await with_grid.client.get("/v1/offers")).json()["items"]
        await node.beat()
        await honest.beat()
        claimed = {each["region"]: each for each in offers}
        return claimed if claimed["DE"]["region_refused"] else None

    claimed = await until(refused)
    assert not claimed["DE"]["accepting"]
    assert "no signal is as quick" in claimed["DE"]["region_refused"]
    assert claimed["AU"]["region_refused"] is None
    notice = (await with_grid.client.get(f"/v1/nodes/{node.id}")).json()["notice"]
    assert "region DE is refused" in notice

    async def supported() -> bool:
        offers = (await with_grid.client.get("/v1/offers")).json()["items"]
        await honest.beat()
        return any(each["region_evidence"] == "latency" for each in offers if each["region"] == "AU")

    await until(supported)
    job = await with_grid.submit()
    assert (await honest.lease_of(job)).wanted == "run"
    await node.close()
    await honest.close()


async def test_the_grid_is_shown_with_its_source_and_kind(with_grid: Running) -> None:
    found = (await with_grid.client.get("/v1/grid")).json()
    assert [each["region"] for each in found["zones"]] == ["DE"]
    zone = (await with_grid.client.get("/v1/grid/DE-BY")).json()
    assert (zone["region"], zone["feed"], zone["now"]["kind"]) == ("DE", "file", "measured")
    assert zone["now"]["grams_per_kwh"] == INTENSITY
    kinds = [hour["kind"] for hour in zone["hours"]]
    assert kinds[0] == "measured"
    assert "forecast" in kinds
    other = (await with_grid.client.get("/v1/grid/FR")).json()
    assert (other["feed"], other["now"]["kind"]) == (None, "yearly average")


async def test_a_month_is_summed_by_region_and_is_a_projects_own(with_grid: Running) -> None:
    node = await opened(with_grid)
    for _ in range(2):
        job = await with_grid.submit()
        order = await node.lease_of(job)
        at = now_ms() - 1000
        joules = 1.8e6
        hours = ((at // 3_600_000, joules),)
        ended = exited(
            order, started_at=at, energy_joules=joules, energy_hours=hours, energy_samples=9,
            outputs=OutputBlob(digest=None, size_bytes=2 * 10**9, file_count=1),
        )  # fmt: skip
        await node.report(started(order, at=at), ended)
    found = (await with_grid.client.get("/v1/reports/carbon")).json()
    (row,) = found["rows"]
    assert (row["region"], row["method"], row["runs"]) == ("DE", "hourly average", 2)
    assert row["energy_kwh"] == pytest.approx(1.0)
    assert row["location_based_kg"] == pytest.approx(0.1 * 1.56)
    assert row["grams_per_kwh"] == pytest.approx(INTENSITY)
    assert 0 < row["embodied_low_kg"] < row["embodied_high_kg"]
    moved = 4 * 0.06 * INTENSITY / 1000  # Of 4 GB, apart: the operational figure above has none of it.
    assert (row["moved_high_kg"], found["moved_high_kg"]) == (pytest.approx(moved), pytest.approx(moved))
    assert row["moved_low_kg"] == pytest.approx(4 * 0.0019 * INTENSITY / 1000)
    assert (row["market_based_kg"], row["runs_without_embodied"]) == (None, 0)
    assert "de.csv" in row["sources"]
    stranger = with_grid.client_with(await with_grid.new_project("other"))
    async with stranger as client:
        assert (await client.get("/v1/reports/carbon")).json()["runs"] == 0
    for month, code in (
        ("2026-13", 400),
        ("0000-01", 400),
        ("9999-12", 400),
        ("1970-01", 200),
        ("9998-12", 200),
    ):
        answer = await with_grid.client.get("/v1/reports/carbon", params={"month": month})
        assert answer.status_code == code, month
        assert code == 400 or answer.json()["runs"] == 0
    await node.close()


async def test_a_replica_that_starts_knows_the_hours_of_before(
    with_grid: Running, database_url: str, grid_folder: Path
) -> None:
    """Its own file has gone: what the first replica read is in the database."""
    (grid_folder / "de.csv").unlink()
    again = running_exchange(database_url, grid_folder / "exchange", grid_file=grid_folder / "grid.yaml")
    async with again as second:
        await until(lambda: _has_zone(second))
        zone = (await second.client.get("/v1/grid/DE")).json()
    assert zone["now"]["grams_per_kwh"] == INTENSITY
    assert "can't be read" in zone["note"]
