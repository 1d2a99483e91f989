"""Nobody gets what is another's: each path of the OpenAPI document, asked by strangers.

A path without a line in CASES fails the first test: whoever adds one says here who may ask and what a
stranger gets.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from server_world import (
    PATIENCE_SECONDS,
    PLAIN,
    Running,
    ScriptedNode,
    chunk,
    exited,
    now_ms,
    running_exchange,
    started,
)

from perak.app.periods import Periods
from perak.domain.checklist import Checklist
from perak.domain.checklist import digest as checklist_digest
from perak.domain.report import ChecklistPosted, Inspected, OutputBlob
from perak.server.auth import SCOPES
from perak.server.routes import ROUTERS
from unit.domain.hardware.inspections import inspection

MARK = "a-private-matter"
"""Stands in everything that the project A writes."""

SECRET = "OF_ALL_PROJECTS"
"""A name that each project may have; what A keeps under it is A's alone."""

PUBLIC, ANY, RENTER, PROVIDER, OPERATOR, NODE = "public", "any", "renter", "provider", "operator", "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Who may ask a path, how it is filled, and what a stranger with the right role gets.

    `stranger`: the statuses that it may get. A 2xx must hold nothing of A, but for its node and offer where
    `shows_offers`, because everybody sees offers, and what of its ids `shows` names. `ids`: which thing of A
    a parameter names, where not the one of its own name. A body's ``$name`` is filled in the same way.
    """

    role: str
    stranger: frozenset[int] = frozenset({403, 404})
    shows_offers: bool = False
    shows: tuple[str, ...] = ()
    ids: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    content: bytes | None = None
    query: str = ""


QUIET = Periods(beat_seconds=60.0)
"""The nodes here never beat, and a busy machine takes longer for all questions than the usual three beats."""

OWN = frozenset({200, 201})
"""A stranger is answered with what is its own."""

CASES = {
    "GET /v1/exchange": Case(role=PUBLIC, stranger=OWN),
    "GET /healthz": Case(role=PUBLIC, stranger=OWN),
    "GET /readyz": Case(role=PUBLIC, stranger=OWN),
    "GET /metrics": Case(role=PUBLIC, stranger=OWN),
    # Whoever has an invite may enrol; the secret in this body is none.
    "POST /v1/enrol": Case(
        role=PUBLIC,
        stranger=frozenset({401}),
        body={"secret": "guessed", "name": "thief", "sign_key": "A" * 43, "seal_key": "A" * 43},
    ),
    "GET /v1/me": Case(role=ANY, stranger=OWN),
    # Before the strangers' other questions, which their own trail repeats.
    "GET /v1/trail": Case(role=ANY, stranger=OWN),
    "POST /v1/jobs": Case(
        role=RENTER,
        stranger=frozenset({400, 404, 422}),
        body={
            "job": {"name": "waits", "run": "cat *", "resources": {"cpu": 1000}},
            "workdir": "$digest",
        },
    ),
    "GET /v1/jobs": Case(role=RENTER, stranger=OWN, query=f"?name={MARK}"),
    "GET /v1/jobs/{job}": Case(role=RENTER),
    "POST /v1/jobs/{job}/cancel": Case(role=RENTER, ids={"job": "live_job"}),
    "POST /v1/jobs/{job}/tunnels": Case(
        role=RENTER, ids={"job": "live_job"}, body={"certificate": "of the client"}
    ),
    "GET /v1/jobs/{job}/log": Case(role=RENTER),
    "GET /v1/jobs/{job}/events": Case(role=RENTER),
    "GET /v1/jobs/{job}/outputs": Case(role=RENTER),
    "POST /v1/quotes": Case(
        role=RENTER,
        stranger=OWN,
        shows_offers=True,
        body={"job": {"name": "quoted", "run": "true"}, "workdir": "$digest"},
    ),
    # Nothing is as large, so that nothing is held: what one renter holds, all others see as taken.
    "POST /v1/quotes/held": Case(
        role=RENTER,
        stranger=frozenset({409}),
        body={"job": {"name": "held", "run": "true", "resources": {"cpu": 1000}}},
    ),
    "GET /v1/jobs/{job}/why": Case(role=RENTER),
    "GET /v1/prices": Case(role=PUBLIC, stranger=OWN),
    "HEAD /v1/blobs/{digest}": Case(role=RENTER),
    "GET /v1/blobs/{digest}": Case(role=RENTER),
    # Only who has the bytes may put them, and then gets nothing that it did not have.
    "PUT /v1/blobs/{digest}": Case(role=RENTER, stranger=frozenset({400, 422}), content=b"other bytes"),
    "GET /v1/wallet": Case(role=ANY, stranger=OWN),
    "GET /v1/earnings": Case(role=PROVIDER, stranger=OWN),
    "GET /v1/grid": Case(role=ANY, stranger=OWN),
    "GET /v1/grid/{region}": Case(role=ANY, stranger=OWN, ids={"region": "secret"}),
    "GET /v1/reports/carbon": Case(role=ANY, stranger=OWN),
    "GET /v1/wallet/entries": Case(role=ANY, stranger=OWN),
    "POST /v1/wallet/funds": Case(role=OPERATOR, body={"amount": "1.00", "project": "$project"}),
    "GET /v1/receipts": Case(role=ANY, stranger=OWN, query="?job=$job"),
    "GET /v1/receipts/{receipt}": Case(role=ANY),
    "GET /v1/nodes": Case(role=PROVIDER, stranger=OWN),
    "GET /v1/nodes/{node}": Case(role=PROVIDER),
    "GET /v1/nodes/{node}/devices": Case(role=PROVIDER),
    "GET /v1/devices/{device}/passport": Case(role=PROVIDER),
    # Whoever was given a digest of it, such as a buyer, reads the whole passport.
    "GET /v1/passports/{digest}": Case(
        role=PUBLIC, stranger=OWN, shows_offers=True, shows=("device",), ids={"digest": "passport"}
    ),
    "PATCH /v1/nodes/{node}": Case(role=PROVIDER, body={"mode": "paused"}),
    "GET /v1/webhooks": Case(role=PROVIDER, stranger=OWN),
    "POST /v1/webhooks": Case(role=PROVIDER, stranger=OWN, body={"url": "https://example.org/hook"}),
    "GET /v1/webhooks/{webhook}": Case(role=PROVIDER),
    "POST /v1/webhooks/{webhook}/test": Case(role=PROVIDER),
    "DELETE /v1/webhooks/{webhook}": Case(role=PROVIDER),
    "POST /v1/invites": Case(role=PROVIDER, stranger=OWN, body={}),
    "GET /v1/offers": Case(role=ANY, stranger=OWN, shows_offers=True),
    "GET /v1/offers/{offer}": Case(role=ANY, stranger=OWN, shows_offers=True),
    # Whoever holds a digest may ask, as the reader of a receipt does.
    "GET /v1/checklists/{digest}": Case(
        role=PUBLIC, stranger=OWN, shows_offers=True, ids={"digest": "checklist"}
    ),
    "PATCH /v1/offers/{offer}": Case(role=PROVIDER, body={"state": "paused"}),
    "GET /v1/secrets": Case(role=RENTER, stranger=OWN),
    "PUT /v1/secrets/{name}": Case(role=RENTER, stranger=OWN, ids={"name": "secret"}, content=b"its own"),
    "DELETE /v1/secrets/{name}": Case(role=RENTER, stranger=OWN, ids={"name": "secret"}),
    "GET /v1/keys": Case(role=ANY, stranger=OWN),
    "POST /v1/keys": Case(role=ANY, body={"name": "thief", "roles": ["renter"], "project": "$project"}),
    "DELETE /v1/keys/{key}": Case(role=ANY),
    "GET /v1/projects": Case(role=OPERATOR),
    "POST /v1/projects": Case(role=OPERATOR, body={"name": "new"}),
    "GET /v1/node/leases/{lease}/workdir": Case(role=NODE),
    "GET /v1/node/leases/{lease}/inputs/{digest}": Case(role=NODE, ids={"digest": "outputs_digest"}),
    "GET /v1/node/leases/{lease}/secrets": Case(role=NODE),
    "PUT /v1/node/leases/{lease}/outputs/{digest}": Case(role=NODE, content=b"other bytes"),
    # Last: the owner's own question ends its node.
    "DELETE /v1/nodes/{node}": Case(role=PROVIDER),
}

OWNER_REFUSED = {
    "POST /v1/enrol",
    "POST /v1/quotes/held",
    "PUT /v1/blobs/{digest}",
    "PUT /v1/node/leases/{lease}/outputs/{digest}",
}
"""Where the case's own body is wrong on purpose, so that even the owner is refused."""


_CLOCKED = re.compile(
    r'"last_(seen|used_at)":("[^"]*"|null)|"state":"(online|suspected)"|"accepting":(true|false)'
    r"|(?m:^: ping.*$)"
)
"""What goes on by itself while a slow machine asks."""


@functools.cache
def documented() -> set[str]:
    app = FastAPI()
    for router in ROUTERS:
        app.include_router(router)
    return {f"{method.upper()} {path}" for path, item in app.openapi()["paths"].items() for method in item}


def cases() -> dict[str, Case]:
    """The cases of the paths that there are."""
    return {name: case for name, case in CASES.items() if name in documented()}


@dataclass
class World:
    """The project A with all that a project can have, and strangers: B's keys and node."""

    exchange: Running
    renter: str
    provider: str
    node: ScriptedNode
    ids: dict[str, str]
    """What a parameter may name; all of it is A's."""
    client: httpx.AsyncClient
    """Without a key; one for all, because each one reads the certificates of the machine."""
    stranger_renter: str = ""
    stranger_provider: str = ""
    stranger_node: ScriptedNode | None = None

    async def ask(self, name: str, key: str | None) -> httpx.Response:
        method, path, rest = self.filled(name)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        if method == "POST":
            headers["Idempotency-Key"] = f"of-all-who-ask-{path}"
        return await self.client.request(method, path, headers=headers, **rest)

    async def ask_as_node(self, name: str, node: ScriptedNode) -> httpx.Response:
        method, path, rest = self.filled(name)
        return await node.request(method, path, **rest)

    def filled(self, name: str) -> tuple[str, str, dict[str, Any]]:
        case, (method, path) = CASES[name], name.split()
        ids = self.ids | {param: self.ids[what] for param, what in case.ids.items()}
        path = re.sub(r"\{(\w+)\}", lambda match: ids[match[1]], path)
        query = re.sub(r"\$(\w+)", lambda match: ids[match[1]], case.query)
        rest: dict[str, Any] = {}
        if case.body is not None:
            rest["json"] = {
                k: ids[v[1:]] if isinstance(v, str) and v[:1] == "$" else v for k, v in case.body.items()
            }
        if case.content is not None:
            rest["content"] = case.content
        return method, path + query, rest

    def leaked(self, name: str, answer: httpx.Response) -> list[str]:
        """What of A stands in the answer, beyond what the stranger itself asked with."""
        asked = repr(self.filled(name))
        shown = {self.ids["node"], self.ids["offer"]} if CASES[name].shows_offers else set()
        shown |= {self.ids[what] for what in CASES[name].shows}
        # A node's name is shown with its offer; its mark is cut out.
        text = answer.text.replace(f"node-of-{MARK}", "") if CASES[name].shows_offers else answer.text
        return sorted(v for v in {*self.ids.values(), MARK} - shown if v in text and v not in asked)

    def faults(self, name: str, answer: httpx.Response, expected: frozenset[int]) -> list[str]:
        leaked = self.leaked(name, answer)
        if answer.status_code in expected and not leaked:
            return []
        return [f"{name}: {answer.status_code}, leaked {leaked}: {answer.text[:300]}"]

    async def snapshot(self) -> dict[str, str]:
        """All that A can read, without the times that go on."""
        found = {}
        for name, case in cases().items():
            if name.startswith("GET ") and case.role in (ANY, RENTER, PROVIDER):
                for key in (self.renter, self.provider):
                    answer = await self.ask(name, key)
                    if answer.status_code == 200:
                        found[f"{name} {key}"] = _CLOCKED.sub("", answer.text)
        return found


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with (
        running_exchange(database_url, tmp_path / "exchange", periods=QUIET) as exchange,
        httpx.AsyncClient(base_url=exchange.url, timeout=PATIENCE_SECONDS, verify=PLAIN) as client,
    ):
        a = await world_of_a(exchange, client)
        renter, project = await new_project(exchange, "b")
        a.stranger_renter = renter
        a.stranger_provider = await new_key(exchange, project, "provider")
        a.stranger_node = await enrolled(exchange, a.stranger_provider, "node-of-b")
        yield a
        await a.stranger_node.close()
        await a.node.close()


async def world_of_a(exchange: Running, anyone: httpx.AsyncClient) -> World:
    renter, project = await new_project(exchange, MARK)
    provider = await new_key(exchange, project, "provider")
    node = await enrolled(exchange, provider, f"node-of-{MARK}")
    workdir, outputs = f"work {MARK}".encode(), f"out {MARK}".encode()
    digest = f"sha256:{hashlib.sha256(workdir).hexdigest()}"
    made = f"sha256:{hashlib.sha256(outputs).hexdigest()}"
    async with exchange.client_with(renter) as client, exchange.client_with(provider) as owner:
        assert (await client.put(f"/v1/blobs/{digest}", content=workdir)).status_code == 201
        assert (await client.put(f"/v1/secrets/{SECRET}", content=MARK.encode())).status_code == 200
        file = {
            "name": MARK,
            "secrets": [SECRET],
            "run": f"echo {MARK}",
            "env": {"TOKEN": MARK},
            "outputs": ["out/"],
        }
        body = {"job": file, "workdir": digest}
        job = (await client.post("/v1/jobs", json=body)).json()["id"]
        order = await node.lease_of(job)
        at, log = now_ms() - 1000, f"{MARK}\n".encode()
        path = f"/v1/node/leases/{order.lease}/outputs/{made}"
        assert (await node.request("PUT", path, content=outputs)).status_code == 201
        blob = OutputBlob(digest=made, size_bytes=len(outputs), file_count=1)
        await node.report(
            started(order, at=at),
            chunk(order, 0, log),
            exited(order, started_at=at, log_bytes=len(log), outputs=blob),
        )
        reads_it = body | {"job": file | {"inputs": {"before": f"job:{job}"}}}
        live = (await client.post("/v1/jobs", json=reads_it)).json()["id"]
        live_order = await node.lease_of(live)
        checklist = Checklist(
            at=now_ms(), agent_version="1", kernel="6", tier="bubblewrap", runtime="", results=()
        )
        seen = inspection(at=now_ms() - 2_000_000, uuid="GPU-of-a")
        await node.report(
            started(live_order), ChecklistPosted(checklist=checklist), Inspected(inspection=seen)
        )
        devices = (await owner.get(f"/v1/nodes/{node.id}/devices")).json()["devices"]
        (receipt,) = (await client.get("/v1/receipts")).json()["items"]
        (offer,) = (await owner.get("/v1/offers")).json()["items"]
        spare = (await client.post("/v1/keys", json={"name": f"{MARK}-spare", "roles": ["renter"]})).json()
        invite = (await owner.post("/v1/invites", json={})).json()
        hook = {"url": f"https://example.org/{MARK}"}
        webhook = (await owner.post("/v1/webhooks", json=hook)).json()
    ids = {
        "project": project,
        "job": job,
        "live_job": live,
        "run": order.run,
        "lease": live_order.lease,
        "ended_lease": order.lease,
        "receipt": receipt["id"],
        "offer": offer["id"],
        "node": node.id,
        "key": spare["id"],
        "spare_secret": spare["secret"],
        "invite": invite["id"],
        "webhook": webhook["id"],
        "invite_token": invite["token"],
        "secret": SECRET,
        "digest": digest,
        "outputs_digest": made,
        "checklist": checklist_digest(checklist),
        "device": "GPU-of-a",
        "passport": devices[0]["passport"],
    }
    return World(exchange, renter, provider, node, ids, anyone)


async def new_project(exchange: Running, name: str) -> tuple[str, str]:
    """(renter's key, project), with money."""
    project = (await exchange.client.post("/v1/projects", json={"name": name})).json()["id"]
    funds = {"amount": "10.00", "project": project}
    assert (await exchange.client.post("/v1/wallet/funds", json=funds)).status_code == 201
    return await new_key(exchange, project, "renter"), project


async def new_key(exchange: Running, project: str, role: str) -> str:
    body = {"name": f"{role}-key", "roles": [role], "project": project}
    return str((await exchange.client.post("/v1/keys", json=body)).json()["secret"])


async def enrolled(exchange: Running, key: str, name: str) -> ScriptedNode:
    async with exchange.client_with(key) as client:
        node = await ScriptedNode.enrol(replace(exchange, client=client), name=name)
    await node.open()
    return node


def test_every_path_has_a_case() -> None:
    missing = documented() - CASES.keys()
    assert not missing, f"say in CASES who may ask these, and what a stranger gets: {sorted(missing)}"


async def test_without_a_key_nothing_but_the_public_paths_answer(world: World) -> None:
    served = (await world.client.get("/openapi.json")).json()["paths"]
    assert {f"{method.upper()} {path}" for path, item in served.items() for method in item} == documented()
    for name, case in cases().items():
        answer = await world.ask(name, None)
        if case.role == PUBLIC:
            assert answer.status_code in case.stranger, (name, answer.text)
        else:
            assert answer.status_code == 401, (name, answer.text)
        assert not world.leaked(name, answer), name


async def test_strangers_get_nothing_and_change_nothing(world: World) -> None:
    # A's own answers to the very same idempotency keys must not be replayed to a stranger.
    for name, key in (("POST /v1/invites", world.provider), ("POST /v1/jobs", world.renter)):
        assert (await world.ask(name, key)).status_code == 201
    before = await world.snapshot()
    strangers = {RENTER: world.stranger_renter, PROVIDER: world.stranger_provider}
    wrong: list[str] = []
    for name, case in cases().items():
        for role, key in strangers.items():
            answer = await world.ask(name, key)
            if case.role == NODE:
                expected = frozenset({401})
            elif case.role in (PUBLIC, ANY, role):
                expected = case.stranger
            else:
                expected = frozenset({403})
            wrong += world.faults(name, answer, expected)
        if case.role == NODE:
            assert world.stranger_node is not None
            answer = await world.ask_as_node(name, world.stranger_node)
            wrong += world.faults(name, answer, case.stranger)
    assert not wrong
    assert await world.snapshot() == before


async def test_a_key_that_only_reads_changes_nothing(world: World) -> None:
    """Of every path, with all roles; a key that submits has no more than jobs and their blobs."""
    body = {"name": "looks", "roles": ["renter", "provider", "operator"], "project": world.ids["project"]}
    scoped = {
        scope: (await world.exchange.client.post("/v1/keys", json=body | {"scope": scope})).json()["secret"]
        for scope in ("read", "submit")
    }
    before = await world.snapshot()
    for scope, secret in scoped.items():
        allowed = SCOPES[scope]
        for name, case in cases().items():
            if name.split()[0] in ("GET", "HEAD") or case.role in (PUBLIC, NODE) or name in allowed:
                continue
            answer = await world.ask(name, secret)
            assert (answer.status_code, answer.json()["code"]) == (403, "scope"), (scope, name, answer.text)
    assert (await world.ask("POST /v1/quotes", scoped["read"])).status_code == 200
    after = await world.snapshot()
    tried = {name for name in after if name.startswith("GET /v1/trail ")}
    assert {name for name in after if after[name] != before[name]} <= tried, "what was tried is written down"
    assert SCOPES["read"] == {"POST /v1/quotes"}
    assert (await world.ask("POST /v1/jobs", scoped["submit"])).status_code == 201


async def test_who_may_ask_is_answered_and_a_key_without_the_role_is_not(world: World) -> None:
    """A case that is filled wrongly would pass as refused; keys of the same project need the role too."""
    owners = {RENTER: world.renter, PROVIDER: world.provider, OPERATOR: world.exchange.key}
    for name, case in cases().items():
        for key in {world.renter, world.provider} - {owners.get(case.role)} if case.role in owners else ():
            answer = await world.ask(name, key)
            assert answer.status_code == 403, (name, answer.text)
            assert not world.leaked(name, answer), name
        if case.role == NODE:
            answer = await world.ask_as_node(name, world.node)
        else:
            answer = await world.ask(name, owners.get(case.role, world.renter))
        if name in OWNER_REFUSED:
            assert 400 <= answer.status_code < 500, (name, answer.text)
        else:
            assert answer.status_code in (200, 201), (name, answer.text)
