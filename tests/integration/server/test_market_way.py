"""The market over HTTP, and from the command line: quotes of whole jobs, held quotes, why, and prices."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from integration.server.server_world import Running, ScriptedNode, exited, now_ms, started

JOB = {
    "name": "priced",
    "run": "true",
    "resources": {"cpu": 1},
    "work": {"device": "cpu", "hours": 2},
    "prefer": "balanced",
    "limits": {"max_duration": "3h", "max_cost": "5.00"},
}


async def post(exchange: Running, path: str, job: dict[str, Any], **more: Any) -> Any:
    return await exchange.client.post(path, json={"job": job, **more})


async def test_a_quote_is_of_the_whole_job(exchange: Running, node: ScriptedNode) -> None:
    quote = (await post(exchange, "/v1/quotes", JOB)).json()

    (offer,) = quote["offers"]
    assert (offer["expected_seconds"], offer["time_source"], offer["expected_cost"]) == (
        7200,
        "declared work",
        "0.72",
    )
    assert offer["pareto"]
    compared = offer["comparison"]
    assert [each["kind"] for each in compared["alternatives"] if each["seller"]] == ["hyperscaler"]
    assert "memory" in compared["included"]
    assert compared["terms"].startswith("Their bills include a vCPU for each core")
    assert float(offer["burden"]) > 0.72 + 2 * 0.20
    assert quote["preference"]["text"].startswith("cost + 0.10 ")


async def test_the_smallest_relaxation_is_named(exchange: Running, node: ScriptedNode) -> None:
    quote = (await post(exchange, "/v1/quotes", {**JOB, "limits": {"max_price": "0.10/h"}})).json()

    (relaxation,) = quote["relaxations"]
    assert relaxation["text"] == "max_price 0.10/h raised to 0.36/h: 1 offer from 0.36/h"


async def test_a_held_quote_is_honoured_at_once(exchange: Running, node: ScriptedNode) -> None:
    held = (await post(exchange, "/v1/quotes/held", JOB)).json()
    assert (held["expected_seconds"], held["expected_cost"]) == (7200, "0.72")
    assert held["carbon_grams"] > 0
    assert held["carbon_source"]

    answer = await post(exchange, "/v1/jobs", JOB, quote=held["id"])

    assert (answer.status_code, answer.json()["state"]) == (201, "leased")
    again = await post(exchange, "/v1/jobs", JOB, quote=held["id"])
    assert (again.status_code, again.json()["code"]) == (409, "quote_expired")


async def test_why_a_job_waits_and_what_price_would_place_it(exchange: Running, node: ScriptedNode) -> None:
    job = (await post(exchange, "/v1/jobs", {**JOB, "limits": {"max_price": "0.10/h"}})).json()["id"]

    why = (await exchange.client.get(f"/v1/jobs/{job}/why")).json()

    assert (why["state"], why["price_now"]) == ("queued", "0.36")
    assert "no offer fits it now" in why["reasons"]
    assert "needs 0.10/h or less, has 0.36/h" in why["elsewhere"][0]


async def test_why_a_job_is_where_it_is_and_what_was_paid(
    exchange: Running, node: ScriptedNode, tmp_path: Path
) -> None:
    job = (await post(exchange, "/v1/jobs", JOB)).json()["id"]
    order = await node.lease_of(job)
    at = now_ms() - 1500
    await node.report(started(order, at=at), exited(order, started_at=at))

    why = (await exchange.client.get(f"/v1/jobs/{job}/why")).json()
    assert "0.36 USD per device-hour" in why["reasons"][0]
    assert any("expected to take 2h 00m, by declared work" in line for line in why["reasons"])
    assert (why["then"], why["elsewhere"]) == ([], [])

    table, chart = tmp_path / "prices.parquet", tmp_path / "prices.svg"
    shown = await perak(exchange, "prices", "--json", "--parquet", str(table), "--plot", str(chart))
    traded = next(cell for cell in json.loads(shown)["cells"] if cell["trades"])
    assert (traded["median"], traded["thin"]) == ("0.36", True)
    assert chart.stat().st_size > 1000
    from pyarrow import parquet

    assert 0.36 in parquet.read_table(table).column("median").to_pylist()


async def test_a_quote_is_drawn(exchange: Running, node: ScriptedNode, tmp_path: Path) -> None:
    file, picture = tmp_path / "job.yaml", tmp_path / "quote.png"
    file.write_text(json.dumps(JOB))

    shown = await perak(exchange, "quote", str(file), "--plot", str(picture))

    assert "Pareto" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")


async def perak(exchange: Running, *args: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "perak",
        *args,
        env={
            "PERAK_URL": exchange.url,
            "PERAK_API_KEY": exchange.key,
            "PATH": "/usr/bin:/bin",
            "HOME": "/tmp",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return out.decode()
