"""The HTTP API as a careful client meets it: keys, pages, repetitions, errors."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from server_world import Running, running_exchange

from perak.domain.errors import Conflict
from perak.domain.units import format_money, parse_money
from perak.server.identity import SecretFileError
from perak.wire.api import BODY_BYTES_MAX, Problem

JOB = {"job": {"name": "test", "run": "echo hi"}}


async def test_fifty_identical_requests_at_once_make_one_job(exchange: Running) -> None:
    answers = await asyncio.gather(
        *(exchange.client.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "same"}) for _ in range(50))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert len((await exchange.client.get("/v1/jobs")).json()["items"]) == 1


async def test_a_used_key_with_another_body_is_refused(exchange: Running) -> None:
    headers = {"Idempotency-Key": "same"}
    await exchange.client.post("/v1/jobs", json=JOB, headers=headers)
    other = {"job": {"name": "other", "run": "echo hi"}}
    answer = await exchange.client.post("/v1/jobs", json=other, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")


async def test_a_refused_request_may_be_tried_again_with_its_key(exchange: Running) -> None:
    headers = {"Idempotency-Key": "same"}
    job = {"job": {"name": "dear", "run": "true", "limits": {"max_cost": 500}}}
    assert (await exchange.client.post("/v1/jobs", json=job, headers=headers)).status_code == 402
    await exchange.client.post("/v1/wallet/funds", json={"amount": "1000.00"})
    answer = await exchange.client.post("/v1/jobs", json=job, headers=headers)
    assert (answer.status_code, answer.json()["held"]) == (201, "500.00")


async def test_a_secret_is_shown_again_only_to_the_same_request(exchange: Running) -> None:
    headers, body = {"Idempotency-Key": "same"}, {"name": "mine", "roles": ["renter"]}
    first = await exchange.client.post("/v1/keys", json=body, headers=headers)
    again = await exchange.client.post("/v1/keys", json=body, headers=headers)
    assert first.json() == again.json()
    async with exchange.services.db.connection() as connection:
        stored = await connection.fetchval("select body from idempotency where key = 'same'")
    assert first.json()["secret"].encode() not in stored


async def test_a_list_comes_in_pages(exchange: Running) -> None:
    jobs = [await exchange.submit(name=f"job-{number}") for number in range(7)]
    found: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = (await exchange.client.get("/v1/jobs", params=params)).json()
        found += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == jobs[::-1]
    only = (await exchange.client.get("/v1/jobs?state=queued,running&name=job-3")).json()["items"]
    assert [job["id"] for job in only] == [jobs[3]]


@pytest.mark.parametrize("amount", ["0.000001", "0.10", "7.00", "12345.6789"])
async def test_money_is_written_the_same_everywhere(exchange: Running, amount: str) -> None:
    await exchange.client.post("/v1/wallet/funds", json={"amount": "100000.00"})
    job = await exchange.submit(limits={"max_cost": amount})
    assert parse_money((await exchange.job(job))["held"]) == parse_money(amount)
    assert (await exchange.job(job))["held"] == format_money(parse_money(amount))


async def test_what_is_another_projects_is_not_found(exchange: Running) -> None:
    job = await exchange.submit()
    async with exchange.client_with(await exchange.new_project("others")) as other:
        for path in (
            f"/v1/jobs/{job}",
            f"/v1/jobs/{job}/log",
            f"/v1/jobs/{job}/events",
            f"/v1/jobs/{job}/outputs",
        ):
            assert (await other.get(path)).status_code == 404, path
        assert (await other.post(f"/v1/jobs/{job}/cancel")).status_code == 404
        assert (await other.get("/v1/jobs")).json()["items"] == []


async def test_roles_bound_what_a_key_may_do(exchange: Running) -> None:
    async with exchange.client_with(await exchange.new_project("renters")) as renter:
        assert (await renter.get("/v1/jobs")).status_code == 200
        for method, path, body in (
            ("POST", "/v1/invites", {}),
            ("POST", "/v1/wallet/funds", {"amount": "1.00"}),
            ("POST", "/v1/projects", {"name": "more"}),
            ("POST", "/v1/keys", {"name": "more", "roles": ["operator"]}),
        ):
            answer = await renter.request(method, path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed"), path


async def test_a_revoked_key_is_out_at_once(exchange: Running) -> None:
    made = (await exchange.client.post("/v1/keys", json={"name": "short", "roles": ["renter"]})).json()
    async with exchange.client_with(made["secret"]) as client:
        assert (await client.get("/v1/jobs")).status_code == 200
        revoked = await exchange.client.delete(f"/v1/keys/{made['id']}")
        assert revoked.json()["revoked_at"] is not None
        assert (await client.get("/v1/jobs")).status_code == 401


async def test_errors_are_problems(exchange: Running) -> None:
    client = exchange.client
    for answer, status, code in (
        (await client.get("/v1/jobs/job-1"), 404, "not_found"),
        (await client.get("/nowhere"), 404, "no_such_route"),
        (await client.put("/v1/jobs"), 405, "method_not_allowed"),
        (await client.post("/v1/jobs", json={"jobs": {}}), 400, "invalid_input"),
        (await client.post("/v1/jobs", content=b"{"), 400, "invalid_input"),
        (await client.get("/v1/jobs?limit=1000000"), 400, "invalid_input"),
        (await client.get("/v1/jobs?state=unheard"), 400, "invalid_input"),
        (await client.post("/v1/jobs", content=b"x" * (BODY_BYTES_MAX + 1)), 413, "too_large"),
        (await client.get("/v1/jobs", headers={"Authorization": "Bearer wrong"}), 401, "not_authenticated"),
        (await client.get("/v1/jobs", headers={"Authorization": ""}), 401, "not_authenticated"),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        problem = Problem.model_validate(answer.json())
        assert (problem.status, problem.code) == (status, code)
        assert answer.headers["x-request-id"] in (problem.instance or "")


async def test_a_wrong_job_file_names_each_place(exchange: Running) -> None:
    answer = await exchange.client.post("/v1/jobs", json={"job": {"name": "x", "rum": "true"}})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_job")
    assert {place["key"] for place in answer.json()["errors"]} == {"run", "rum"}
    later = await exchange.client.post("/v1/jobs", json={"job": {"name": "x", "run": "y", "checkpoint": {}}})
    assert later.json()["code"] == "not_supported_yet"


async def test_an_error_of_ours_shows_nothing_of_the_inside(
    exchange: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr("perak.adapters.db.views.jobs.list_jobs", broken)
    answer = await exchange.client.get("/v1/jobs")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text


async def test_a_blob_has_the_digest_that_it_is_named_by(exchange: Running) -> None:
    data = b"bytes"
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    path = f"/v1/blobs/{digest}"
    wrong = await exchange.client.put(path, content=b"others")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "digest_mismatch")
    assert (await exchange.client.head(path)).status_code == 404
    assert (await exchange.client.put(path, content=data)).status_code == 201
    assert (await exchange.client.put(path, content=data)).status_code == 200
    assert (await exchange.client.head(path)).status_code == 200
    assert (await exchange.client.get(path)).content == data
    async with exchange.client_with(await exchange.new_project("others")) as other:
        assert (await other.head(path)).status_code == 404
        assert (await other.get(path)).status_code == 404
        # Knowing the digest is no proof of having the bytes.
        assert (await other.put(path, content=b"others")).status_code == 400
        assert (await other.put(path, content=data)).status_code == 201


async def test_a_job_needs_its_work_folder_first(exchange: Running) -> None:
    digest = "sha256:" + "0" * 64
    answer = await exchange.client.post(
        "/v1/jobs", json={"job": {"name": "x", "run": "true", "workdir": "."}, "workdir": digest}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")


async def test_it_describes_itself(exchange: Running) -> None:
    document = (await exchange.client.get("/openapi.json")).json()
    assert "/v1/jobs/{job}/events" in document["paths"]
    assert (await exchange.client.get("/healthz")).json() == (await exchange.client.get("/readyz")).json()
    await exchange.submit()
    figures = (await exchange.client.get("/metrics")).text
    assert 'perak_state{kind="job",state="queued"} 1.0' in figures
    assert 'route="/v1/jobs"' in figures


async def test_a_restart_finds_everything_again(database_url: str, tmp_path: Path) -> None:
    async with running_exchange(database_url, tmp_path / "exchange", name="home") as first:
        job = await first.submit()
        facts = (await first.client.get("/v1/exchange")).json()
    async with running_exchange(database_url, tmp_path / "exchange", operator_key=first.key) as second:
        assert (await second.job(job))["state"] == "queued"
        assert (await second.client.get("/v1/exchange")).json() == facts
        assert job.endswith("@home")
    with pytest.raises(Conflict, match="fixed at its first start"):
        async with running_exchange(database_url, tmp_path / "exchange", name="elsewhere"):
            pass
    (tmp_path / "exchange" / "exchange.secret").unlink()
    with pytest.raises(SecretFileError, match="sealed"):
        async with running_exchange(database_url, tmp_path / "exchange"):
            pass


async def test_replicas_wake_each_other(database_url: str, tmp_path: Path) -> None:
    async with (
        running_exchange(database_url, tmp_path / "exchange") as one,
        running_exchange(database_url, tmp_path / "exchange", operator_key=one.key) as two,
    ):
        made = (await one.client.post("/v1/keys", json={"name": "short", "roles": ["renter"]})).json()
        async with two.client_with(made["secret"]) as client:
            assert (await client.get("/v1/jobs")).status_code == 200
            with two.services.hub.market() as wakeup:
                await one.submit()
                assert await wakeup.wait(5)
            await one.client.delete(f"/v1/keys/{made['id']}")
            async with asyncio.timeout(4):  # less than a key is remembered
                while (await client.get("/v1/jobs")).status_code == 200:
                    await asyncio.sleep(0.05)
