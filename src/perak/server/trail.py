"""Notes what is done with keys, projects, money, secrets and nodes, in the transaction of the deed itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel

from perak.adapters.db.database import PgTransaction
from perak.app.effects import Effect
from perak.app.records import Caller
from perak.domain.errors import DomainError
from perak.server import clock
from perak.server.access import services_of
from perak.server.auth import address_of

SUBJECT_MAX = 200
"""Characters of what a deed is done to: ids and names are shorter, and a stranger's guess may be anything."""

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Deed:
    """Who does what. `subject` None: what is made, by its id; `project`: whose it is, if another's."""

    caller: Caller
    action: str
    subject: str | None = None
    project: str | None = None


async def note(tx: PgTransaction, request: Request, deed: Deed, *, made: BaseModel) -> None:
    """It was done, if this transaction commits."""
    await _append(tx, request, deed, subject=deed.subject or str(getattr(made, "id", "")), outcome="done")


async def noted(
    request: Request, action: Callable[[PgTransaction], Awaitable[tuple[M, Sequence[Effect]]]], deed: Deed
) -> M:
    """Do it in one transaction with its note."""

    async def once(tx: PgTransaction) -> tuple[M, Sequence[Effect]]:
        model, effects = await action(tx)
        await note(tx, request, deed, made=model)
        return model, effects

    return await with_refusals(request, lambda: services_of(request).commit(once), deed)


async def with_refusals(request: Request, do: Callable[[], Awaitable[T]], deed: Deed) -> T:
    """Do it, or note that it was refused."""
    try:
        return await do()
    except DomainError as error:
        async with services_of(request).db.transaction() as tx:
            outcome = f"refused: {error.code}"
            await _append(tx, request, deed, subject=deed.subject or "", outcome=outcome)
        raise


async def _append(tx: PgTransaction, request: Request, deed: Deed, *, subject: str, outcome: str) -> None:
    await tx.trail.append(
        caller=deed.caller,
        address=address_of(request),
        action=deed.action,
        subject=subject.replace("\0", "")[:SUBJECT_MAX],
        subject_project=deed.project,
        outcome=outcome,
        now=clock.now(),
    )
