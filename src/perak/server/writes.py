"""Writes that may come twice: a request with the same idempotency key is answered as it was the first time.

The reply is stored in the transaction of the write itself, so either both happened or neither. Of fifty
identical requests at once one does the work, and the others wait for its commit. A refusal is not kept: the
same key may try again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from perak.adapters.db.database import PgTransaction
from perak.app.effects import Effect
from perak.app.records import IdempotentReply
from perak.domain.errors import InvalidInput
from perak.server.access import services_of
from perak.server.trail import Deed, note, with_refusals
from perak.wire.api import IDEMPOTENCY_KEY_MAX

HEADER = "Idempotency-Key"
REPLAYED = {"Idempotency-Replayed": "true"}

Write = Callable[[PgTransaction], Awaitable[tuple[BaseModel, Sequence[Effect]]]]


async def write(
    request: Request,
    action: Write,
    *,
    project: str,
    status: int = 200,
    secret: bool = False,
    deed: Deed | None = None,
) -> Response:
    """Do `action` once for the request's idempotency key, in one transaction, and answer with its model.

    `secret`: the reply shows something once; what is kept for a repetition is sealed. `deed`: what the trail
    says of it, once. Raises Conflict where the key was used for another request.
    """
    services = services_of(request)
    key = _key(request)
    fingerprint = await _fingerprint(request)

    async def once(tx: PgTransaction) -> tuple[Response, Sequence[Effect]]:
        earlier = key and await tx.idempotency.begin(project=project, key=key, fingerprint=fingerprint)
        if earlier:
            body = services.identity.vault.open(earlier.body) if secret else earlier.body
            return _response(earlier.status, body, REPLAYED), ()
        model, effects = await action(tx)
        if deed is not None:
            await note(tx, request, deed, made=model)
        body = model.model_dump_json().encode()
        if key:
            kept = services.identity.vault.seal(body) if secret else body
            reply = IdempotentReply(status=status, body=kept)
            await tx.idempotency.finish(project=project, key=key, reply=reply)
        return _response(status, body), effects

    if deed is None:
        return await services.commit(once)
    return await with_refusals(request, lambda: services.commit(once), deed)


def reply(model: BaseModel, *, status: int = 200) -> Response:
    """A model as JSON; quicker than handing it to the framework, which would check and convert it again."""
    return _response(status, model.model_dump_json().encode())


def reply_page(items: str, next_cursor: str | None) -> Response:
    """A page whose items are JSON already."""
    return _response(200, f'{{"items":{items},"next_cursor":{json.dumps(next_cursor)}}}'.encode())


def _response(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status_code=status, media_type="application/json", headers=headers)


def _key(request: Request) -> str | None:
    key = request.headers.get(HEADER)
    if key is not None and not (0 < len(key) <= IDEMPOTENCY_KEY_MAX and key.isprintable()):
        raise InvalidInput(f"{HEADER} has 1 to {IDEMPOTENCY_KEY_MAX} printable characters")
    return key


async def _fingerprint(request: Request) -> bytes:
    head = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    return hashlib.sha256(head + await request.body()).digest()
