"""An exchange at the HTTP boundary, in memory: enough of it for clients to be tested against."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx

from perak.wire import api

URL = "http://127.0.0.1:8470"
JOB = "job-01k9f3v2m8q7zx4t5r@home"
OTHER_JOB = "job-01k9f3v2m8q7zx4aaa@home"
RECEIPT = "receipt-01k9f3v2m8q7zx4t5r@home"
OFFER = "offer-01k9f3v2m8q7zx4t5r@home"
NODE = "node-01k9f3v2m8q7zx4t5r@home"
AT = datetime(2026, 11, 1, 12, tzinfo=UTC)


def a_job(**changes: Any) -> api.Job:
    fields: dict[str, Any] = {
        "id": JOB,
        "name": "hello",
        "state": "succeeded",
        "reason": None,
        "exit_code": 0,
        "attempts": 1,
        "created_at": AT,
        "started_at": AT,
        "ended_at": AT,
        "held": "0.00",
        "cost": "0.0123",
        "node_name": "attic-1",
    }
    return api.Job.model_validate({**fields, **changes})


def a_run(**changes: Any) -> dict[str, Any]:
    fields = {
        "id": "run-01k9f3v2m8q7zx4t5r@home", "attempt": 1, "epoch": 1, "state": "exited", "node": NODE,
        "node_name": "attic-1", "offer": OFFER, "lease": "lease-01k9f3v2m8q7zx4t5r@home",
        "lease_state": "ended", "price": "0.01", "devices": [], "detail": None, "tier": "bubblewrap",
        "started_at": AT, "ended_at": AT, "exit_code": 0, "cause": "exited", "cost": "0.0123",
        "receipt": RECEIPT,
    }  # fmt: skip
    return {**fields, **changes}


def a_detail(job: api.Job, **changes: Any) -> api.JobDetail:
    step = {"seq": 1, "at": AT, "kind": "queued", "detail": "queued"}
    fields = {**job.model_dump(), "spec": {"name": job.name}, "runs": [a_run()], "events": [step]}
    return api.JobDetail.model_validate({**fields, **changes})


RECEIPT_SAID = {
    "id": RECEIPT, "job": JOB, "currency": "USD", "billed_seconds": 12, "cost_micros": 12_300,
    "fee_micros": 300, "payout_micros": 12_000, "held_micros": 100_000, "refunded_micros": 87_700,
    "price_per_device_hour_micros": 10_000, "devices_milli": 250, "exit_code": 0, "cause": "exited",
    "device": {"kind": "cpu", "model": "Xeon", "uuids": [], "cpu_milli": 250, "memory_bytes": 2**28},
    "sandbox": {"tier": "bubblewrap", "runtime": "bwrap 0.11", "enforced": ["memory"],
                "unenforced": {"disk": "no project quota here"}},
    "energy": {"joules": 84.0, "method": "model", "uncertainty_percent": 50.0},
    "carbon": {"grams": 0.0082, "grams_per_kwh": 350.0, "pue": 1.5, "region": "DE",
               "method": "yearly average", "source": "Ember", "year": 2025},
    "logs": {"size_bytes": 12, "sha256": None}, "outputs_digest": None, "evidence": "e30.e30.e30",
    "started_at": "2026-11-01T12:00:00.000Z", "ended_at": "2026-11-01T12:00:12.000Z",
}  # fmt: skip

QUOTE = {
    "currency": "USD", "max_duration_seconds": 3600, "hold": "0.10", "affordable": True,
    "offers": [
        {"offer": OFFER, "node_name": "attic-1", "region": "DE", "device": "V100", "fits": True,
         "cloud_comparison": "a V100 in the cloud: 3.06 on demand",
         "misfits": [], "price": "0.20", "per_hour": "0.40", "cost_max": "0.40", "energy_watts": 250.0,
         "carbon_grams_per_hour": 87.5, "carbon_source": "Ember 2025", "tier": "bubblewrap",
         "unenforced": {"disk": "no quota"}},
        {"offer": "offer-01k9f3v2m8q7zx4bad@home", "node_name": "cellar", "region": "FR", "device": "P100",
         "fits": False,
         "misfits": [{"dimension": "gpu", "needed": "V100", "available": "P100", "now_only": False}],
         "price": None, "per_hour": None, "cost_max": None, "energy_watts": None,
         "carbon_grams_per_hour": None, "carbon_source": None, "tier": "bubblewrap", "unenforced": {}},
    ],
}  # fmt: skip


def sse(event: str, data: dict[str, Any], event_id: str) -> bytes:
    return f"event: {event}\nid: {event_id}\ndata: {json.dumps(data)}\n\n".encode()


def log_event(text: bytes, *, offset: int = 0, attempt: int = 1, event_id: str = "1.0.0") -> bytes:
    data = {"attempt": attempt, "offset": offset, "data": base64.b64encode(text).decode()}
    return sse("log", data, event_id)


def step_event(detail: str, *, kind: str = "state", event_id: str = "1.0.1") -> bytes:
    return sse(kind, {"seq": 1, "at": AT.isoformat(), "kind": "leased", "detail": detail}, event_id)


def end_event(job: api.Job) -> bytes:
    return sse("end", {"job": job.model_dump(mode="json")}, "1.9.9")


class Breaks(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that ends in a broken connection."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self.data
        raise httpx.ReadError("connection reset")

    async def __aiter__(self) -> Any:
        yield self.data
        raise httpx.ReadError("connection reset")


Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class FakeExchange:
    """Answers what it knows, remembers what was asked, and misbehaves as told by `script`.

    `script` maps "METHOD path" to answers that come first, one for each request.
    """

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.job = a_job()
        self.detail = a_detail(self.job)
        self.others: list[api.Job] = []
        self.blobs: dict[str, bytes] = {}
        self.submitted: list[dict[str, Any]] = []
        self.streams: list[bytes | Breaks] = [log_event(b"hello\n") + end_event(self.job)]
        self.log = b"hello\n"
        self.outputs = b""
        self.script: dict[str, list[Answer]] = {}

    @property
    def asked(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.requests]

    def sync_transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        request.read()
        return self._answer(request)

    async def answer_async(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self._answer(request)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        scripted = self.script.get(f"{request.method} {request.url.path}")
        if scripted:
            answer = scripted.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer(request) if callable(answer) else answer
        return self._route(request)

    def _route(self, request: httpx.Request) -> httpx.Response:
        path, method = request.url.path, request.method
        match method, path.split("/")[2:]:
            case "GET", ["exchange"]:
                return as_json(EXCHANGE)
            case "GET", ["me"]:
                return as_json(ME)
            case "HEAD", ["blobs", digest]:
                return httpx.Response(200 if digest in self.blobs else 404)
            case "PUT", ["blobs", digest]:
                self.blobs[digest] = request.content
                return as_json({"digest": digest, "size_bytes": len(request.content)}, 201)
            case "POST", ["quotes"]:
                return as_json(QUOTE)
            case "POST", ["jobs"]:
                self.submitted.append(json.loads(request.content))
                return as_json(self.job.model_dump(mode="json"), 201)
            case "GET", ["jobs"]:
                return self._jobs(request)
            case "GET", ["jobs", job] if job == JOB:
                return as_json(self.detail.model_dump(mode="json"))
            case "POST", ["jobs", job, "cancel"] if job == JOB:
                return as_json({**self.job.model_dump(mode="json"), "state": "cancelling"})
            case "GET", ["jobs", job, "events"] if job == JOB:
                body = self.streams.pop(0)
                kind = {"Content-Type": "text/event-stream"}
                if isinstance(body, Breaks):
                    return httpx.Response(200, stream=body, headers=kind)
                return httpx.Response(200, content=body, headers=kind)
            case "GET", ["jobs", job, "log"] if job == JOB:
                return httpx.Response(200, content=self.log)
            case "GET", ["jobs", job, "outputs"] if job == JOB and self.outputs:
                digest = f"sha256:{hashlib.sha256(self.outputs).hexdigest()}"
                return httpx.Response(200, content=self.outputs, headers={"X-Perak-Digest": digest})
            case "GET", ["receipts", receipt] if receipt == RECEIPT:
                return as_json({"receipt": RECEIPT_SAID, "jws": "a.b.c"})
            case "GET", ["wallet"]:
                return as_json(WALLET)
            case "GET", ["nodes"]:
                return as_json({"items": [NODE_SAID], "next_cursor": None})
            case "GET", ["offers"]:
                return as_json({"items": [OFFER_SAID], "next_cursor": None})
            case "GET", ["offers", offer] if offer == OFFER:
                return as_json(OFFER_SAID)
            case "PATCH", ["offers", offer] if offer == OFFER:
                return as_json({**OFFER_SAID, **json.loads(request.content)})
            case "POST", ["invites"]:
                return as_json(
                    {"id": "invite-1", "token": "perak1.abc", "expires_at": AT.isoformat(), "uses": 1}, 201
                )
            case "GET", ["keys"]:
                return as_json({"items": [KEY_SAID], "next_cursor": None})
            case "POST", ["keys"]:
                return as_json({**KEY_SAID, "secret": "pk_secret"}, 201)
            case "GET", ["projects"]:
                return as_json({"items": [PROJECT_SAID], "next_cursor": None})
            case "POST", ["wallet", "funds"]:
                amount = json.loads(request.content)["amount"]
                entry = {"id": "entry-1", "at": AT.isoformat(), "kind": "funding", "amount": amount}
                return as_json({**entry, "job": None, "note": None}, 201)
        return problem(404, "not_found", f"there is no {path}")

    def _jobs(self, request: httpx.Request) -> httpx.Response:
        """Two to a page, so that there are pages."""
        found = [self.job, *self.others]
        if name := request.url.params.get("name"):
            found = [job for job in found if job.name == name]
        start = int(request.url.params.get("cursor", "0"))
        cursor = str(start + 2) if start + 2 < len(found) else None
        items = [job.model_dump(mode="json") for job in found[start : start + 2]]
        return as_json({"items": items, "next_cursor": cursor})


def as_json(value: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=value)


def problem(status: int, code: str, detail: str, **headers: str) -> httpx.Response:
    body = {"title": "No", "status": status, "detail": detail, "code": code}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json", **headers})


EXCHANGE = {
    "name": "home", "version": "0.1.0", "currency": "USD", "fee_percent": 5.0,
    "ca_fingerprint": "sha256:" + "0" * 64, "ca_certificate": "",
}  # fmt: skip
ME = {
    "project": "project-01k9f3v2m8q7zx4t5r@home", "project_name": "lab", "key": "key-1",
    "key_name": "laptop", "roles": ["renter"],
}  # fmt: skip
WALLET = {
    "project": "project-01k9f3v2m8q7zx4t5r@home", "currency": "USD", "available": "5.00", "held": "0.10",
    "earned": "0.00",
}  # fmt: skip
NODE_SAID = {
    "id": NODE, "name": "attic-1", "project": "p", "state": "online", "mode": "accepting",
    "last_seen": AT.isoformat(), "enrolled_at": AT.isoformat(), "agent_version": "0.1.0", "offer": OFFER,
    "live_leases": 0,
}  # fmt: skip
OFFER_SAID = {
    "id": OFFER, "version": 1, "node": NODE, "node_name": "attic-1", "state": "open", "accepting": True,
    "region": "DE", "cpu_model": "Xeon", "cpu_milli": 2000, "memory_bytes": 4 * 10**9,
    "disk_bytes": 10**10, "free_cpu_milli": 2000, "free_memory_bytes": 4 * 10**9,
    "free_disk_bytes": 10**10, "devices": [], "price_gpu": None, "price_cpu": "0.01", "pythons": ["3.11"],
    "tier": "bubblewrap", "runtime": "bwrap", "enforced": [], "unenforced": {"disk": "no loop devices"},
    "tiers": [{"tier": "bubblewrap", "runtime": "bwrap", "enforced": [], "devices": True,
               "unenforced": {"disk": "no loop devices"}, "checklist": "sha256:" + "5f" * 32}],
}  # fmt: skip
KEY_SAID = {
    "id": "key-01k9f3v2m8q7zx4t5r@home", "name": "laptop", "project": "p", "roles": ["renter"],
    "created_at": AT.isoformat(), "revoked_at": None,
}  # fmt: skip
PROJECT_SAID = {"id": "project-01k9f3v2m8q7zx4t5r@home", "name": "lab", "created_at": AT.isoformat()}
