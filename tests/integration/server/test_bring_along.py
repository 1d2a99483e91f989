"""What the exchange does about images and inputs: pins, looks whose they are, hands outputs to nodes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from server_world import OFFER, Running, ScriptedNode, exited, now_ms, started

from perak.domain.report import OfferPosted, OutputBlob

DIGEST = "sha256:" + "ab" * 32
IMAGE = f"registry.example.org/team/tool:1@{DIGEST}"
OUTPUTS = b"the packed outputs of a job" * 1000
OUTPUTS_DIGEST = f"sha256:{hashlib.sha256(OUTPUTS).hexdigest()}"


async def run_to_its_end(exchange: Running, node: ScriptedNode, *, with_outputs: bool, **job: Any) -> str:
    id = await exchange.submit(**job)
    order = await node.lease_of(id)
    blob = None
    if with_outputs:
        path = f"/v1/node/leases/{order.lease}/outputs/{OUTPUTS_DIGEST}"
        assert (await node.request("PUT", path, content=OUTPUTS)).status_code == 201
        blob = OutputBlob(digest=OUTPUTS_DIGEST, size_bytes=len(OUTPUTS), file_count=1)
    at = now_ms() - 1000
    await node.report(started(order, at=at), exited(order, started_at=at, outputs=blob))
    return id


async def test_an_image_without_a_digest_is_refused_with_the_way_to_pin(exchange: Running) -> None:
    body = {"job": {"name": "x", "image": "debian:12"}}
    answer = await exchange.client.post("/v1/jobs", json=body)

    assert (answer.status_code, answer.json()["code"]) == (400, "image_not_pinned")
    assert "debian:12@sha256:" in answer.json()["detail"]
    quote = await exchange.client.post("/v1/quotes", json=body)
    assert quote.status_code == 200, "what it would cost can be asked by tag"


async def test_the_receipt_names_the_image(exchange: Running, node: ScriptedNode) -> None:
    kept = await exchange.client.put("/v1/secrets/REGISTRY", content=b"user:password")
    assert kept.is_success, kept.text
    id = await run_to_its_end(
        exchange, node, with_outputs=False, image={"name": IMAGE, "credentials": "REGISTRY"}, run=None
    )

    (receipt,) = (await exchange.client.get(f"/v1/receipts?job={id}")).json()["items"]
    whole = (await exchange.client.get(f"/v1/receipts/{receipt['id']}")).json()
    assert whole["receipt"]["image"] == IMAGE


async def test_a_node_without_room_is_no_match_and_the_quote_says_so(
    exchange: Running, node: ScriptedNode
) -> None:
    await node.report(OfferPosted(offer=replace(OFFER, takes=("https",))))
    job = {"name": "x", "run": "true", "image": IMAGE, "inputs": {"in": f"s3://bucket/key@{DIGEST}"}}

    quote = (await exchange.client.post("/v1/quotes", json={"job": job})).json()

    reasons = str(quote)
    assert "a container image" in reasons
    assert "an input by s3" in reasons


async def test_outputs_of_an_earlier_job_are_pinned_and_sent_in_parts(
    exchange: Running, node: ScriptedNode
) -> None:
    made = await run_to_its_end(exchange, node, with_outputs=True, outputs=["out/"])

    id = await exchange.submit(inputs={"before": f"job:{made}/out/model"})

    order = await node.lease_of(id)
    assert [(each.path, each.url, each.digest) for each in order.inputs] == [
        ("before", f"job:{made}/out/model", OUTPUTS_DIGEST)
    ]
    path = f"/v1/node/leases/{order.lease}/inputs/{OUTPUTS_DIGEST}"
    assert (await node.request("GET", path)).content == OUTPUTS
    rest = await node.request("GET", path, headers={"Range": "bytes=5000-"})
    assert (rest.status_code, rest.content) == (206, OUTPUTS[5000:])
    assert rest.headers["content-range"] == f"bytes 5000-{len(OUTPUTS) - 1}/{len(OUTPUTS)}"
    beyond = await node.request("GET", path, headers={"Range": f"bytes={len(OUTPUTS)}-"})
    assert beyond.status_code == 416
    assert (await node.request("GET", f"/v1/node/leases/{order.lease}/inputs/{DIGEST}")).status_code == 404


async def test_outputs_that_are_not_ones_own_are_not_found(exchange: Running, node: ScriptedNode) -> None:
    made = await run_to_its_end(exchange, node, with_outputs=True, outputs=["out/"])
    bare = await run_to_its_end(exchange, node, with_outputs=False)
    stranger = await exchange.new_project("stranger")

    async def submit(source: str, **headers: str) -> int:
        body = {"job": {"name": "x", "run": "true", "inputs": {"in": source}}}
        answer = await exchange.client.post("/v1/jobs", json=body, headers=headers)
        return answer.status_code

    assert await submit(f"job:{made}", Authorization=f"Bearer {stranger}") == 404
    assert await submit(f"job:{made}@{OUTPUTS_DIGEST}", Authorization=f"Bearer {stranger}") == 404
    assert await submit("job:job-nobody@local") == 404
    assert await submit(f"job:{bare}") == 404
    assert await submit(f"job:{made}@{DIGEST}") == 400, "they have another digest"
