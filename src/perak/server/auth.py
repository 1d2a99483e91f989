"""Keys of people and programs: their secrets, and who asks."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from typing import TYPE_CHECKING, Annotated

import asyncpg
from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from perak.adapters.db.database import Database
from perak.app.records import Caller
from perak.domain.errors import NotAllowed, NotAuthenticated
from perak.server import clock
from perak.server.access import services_of

if TYPE_CHECKING:
    from perak.server.services import Services

KEY_PREFIX = "perak_"
KEY_BYTES = 32
CACHE_SECONDS = 5.0
"""A key is looked up this often at most. Revoking one empties the cache of every replica at once."""
CACHED_KEYS_MAX = 10_000
USED_SECONDS = 60.0
"""When a key was last used is known this well: one small write in a minute, however busy it is."""

READING = frozenset({"GET", "HEAD"})
PATH_CHARACTERS = 200
"""Of a refused request's path, in the trail."""

SCOPES: dict[str, frozenset[str]] = {
    "read": frozenset({"POST /v1/quotes"}),
    "submit": frozenset(
        {
            "POST /v1/quotes",
            "POST /v1/quotes/held",
            "POST /v1/jobs",
            "POST /v1/jobs/{job}/cancel",
            "PUT /v1/blobs/{digest}",
        }
    ),
}
"""What a key may do besides reading, by its scope; the rest is refused. "full" is all of its roles."""

_bearer = HTTPBearer(auto_error=False, description="A key's secret: `Authorization: Bearer perak_…`")


def new_secret() -> str:
    """The secret of a new key, 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def secret_hash(secret: str) -> bytes:
    """What is stored of a secret. It has 256 random bits, which nobody guesses, so that a plain SHA-256 is
    enough; a slow hash is for passwords that people choose, and would cost each request 100 ms."""
    return hashlib.sha256(secret.encode()).digest()


class KeyCache:
    """Who a secret belongs to, remembered for CACHE_SECONDS; keyed by hash, so that no secret stays here."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: dict[bytes, tuple[float, Caller]] = {}

    async def find(self, secret: str) -> Caller | None:
        """The caller; None for a secret that is unknown, revoked or expired."""
        caller = await self._find(secret)
        return None if caller and caller.expires_at and caller.expires_at <= clock.now() else caller

    async def _find(self, secret: str) -> Caller | None:
        hashed = secret_hash(secret)
        expires, caller = self._known.get(hashed, (0.0, None))
        if caller is not None and expires > time.monotonic():
            return caller
        known = self._known
        async with self._db.transaction() as tx:
            caller = await tx.keys.find(secret_hash=hashed)
        # Emptied meanwhile: the answer may be from before a revocation, and is good for this request only.
        if caller is not None and known is self._known:
            if len(known) >= CACHED_KEYS_MAX:
                known.clear()
            known[hashed] = (time.monotonic() + CACHE_SECONDS, caller)
        if caller is not None:
            await self._note_use(caller)
        return caller

    async def _note_use(self, caller: Caller) -> None:
        now = clock.now()
        if caller.used_at is not None and (now - caller.used_at).total_seconds() < USED_SECONDS:
            return
        # Whoever may ask is answered, also where nothing can be written now.
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            async with self._db.transaction() as tx:
                await tx.keys.used(caller.key, now=now)

    def clear(self) -> None:
        self._known = {}


async def any_caller(request: Request, _: Annotated[object, Depends(_bearer)] = None) -> Caller:
    """Who asks, if its key's scope has this. Raises NotAuthenticated, NotAllowed, OverLimit."""
    services, authorization = services_of(request), request.headers.get("authorization", "")
    caller = await caller_of(services, authorization, address=address_of(request))
    await _check_scope(caller, request)
    return caller


async def _check_scope(caller: Caller, request: Request) -> None:
    """What a key tried beyond its scope is in the trail: it may be in the wrong hands."""
    if caller.scope == "full" or request.method in READING:
        return
    wanted = f"{request.method} {request.scope['route'].path}"
    if wanted not in SCOPES[caller.scope]:
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            async with services_of(request).db.transaction() as tx:
                await tx.trail.append(
                    caller=caller,
                    address=address_of(request),
                    action=wanted,
                    subject=request.url.path.replace("\0", "")[:PATH_CHARACTERS],
                    subject_project=None,
                    outcome="refused: scope",
                    now=clock.now(),
                )
        raise NotAllowed(
            f"the key {caller.key_name!r} has the scope {caller.scope} and may not change this; use another "
            "key, or make one: perak key create NAME --scope full",
            code="scope",
        )


async def caller_of(services: Services, authorization: str, *, address: str) -> Caller:
    """Whose key is in an Authorization header. Raises NotAuthenticated, OverLimit."""
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() != "bearer" or not secret:
        services.limits.address(address)
        raise NotAuthenticated(
            "this needs a key: send `Authorization: Bearer <key>`, or set PERAK_API_KEY, or run `perak login`"
        )
    caller = await services.keys.find(secret.strip())
    if caller is None:
        # Looked up all the same: behind one address there may be many, and a valid key is never locked out.
        services.limits.failure(address)
        services.limits.check_failures(address)
        raise NotAuthenticated("this key is unknown, revoked or expired; `perak login` with another one")
    services.limits.key(caller.key)
    return caller


class HasRole:
    """A dependency: the caller, if its key has the role (an operator's key has no other by itself)."""

    def __init__(self, role: str) -> None:
        self._role = role

    async def __call__(self, caller: Annotated[Caller, Depends(any_caller)]) -> Caller:
        if self._role not in caller.roles:
            has = ", ".join(sorted(caller.roles))
            raise NotAllowed(
                f"this needs a key with the role {self._role}; the key {caller.key_name!r} has: {has}. "
                "Ask your operator for one: perak key create"
            )
        return caller


async def public(request: Request) -> None:
    """A dependency of what anyone may ask: only the address is limited."""
    services_of(request).limits.address(address_of(request))


def address_of(request: Request) -> str:
    return request.client.host if request.client else "local"


AnyCaller = Annotated[Caller, Depends(any_caller)]
Renter = Annotated[Caller, Depends(HasRole("renter"))]
Provider = Annotated[Caller, Depends(HasRole("provider"))]
Operator = Annotated[Caller, Depends(HasRole("operator"))]
