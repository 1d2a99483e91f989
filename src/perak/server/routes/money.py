"""Wallets and receipts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.views import money as views
from perak.app.effects import Effect, MarketChanged
from perak.domain.errors import InvalidInput, NotFound
from perak.domain.units import parse_money
from perak.server import clock
from perak.server.access import services_of
from perak.server.auth import AnyCaller, Operator
from perak.server.paging import AskedPage
from perak.server.trail import SUBJECT_MAX, Deed
from perak.server.writes import reply, write
from perak.wire.api import EntryView, Funding, Page, Receipt, ReceiptSummary, Wallet

router = APIRouter(prefix="/v1", tags=["money"])


@router.get("/wallet", response_model=Wallet)
async def get_wallet(request: Request, caller: AnyCaller) -> Response:
    """What the project can spend, what is held for its jobs, and what it earned."""
    services = services_of(request)
    async with services.db.connection() as connection:
        wallet = await views.get_wallet(
            connection, project=caller.project, currency=services.identity.facts.currency
        )
    return reply(wallet)


@router.get("/wallet/entries", response_model=Page[EntryView])
async def list_entries(request: Request, caller: AnyCaller, paging: AskedPage) -> Response:
    """What moved the project's money, newest first."""
    if paging.cursor is not None and not (paging.cursor.isdigit() and len(paging.cursor) <= 18):
        raise InvalidInput("this cursor is not one of this list; start without one")
    before = None if paging.cursor is None else int(paging.cursor)
    async with services_of(request).db.connection() as connection:
        entries = await views.list_entries(
            connection, project=caller.project, before=before, limit=paging.read
        )
    return reply(paging.page(Page[EntryView], entries))


@router.post("/wallet/funds", status_code=201, response_model=EntryView)
async def fund(body: Funding, request: Request, caller: Operator) -> Response:
    """Note money that a project brought in, as the operator's own record."""
    amount, project = parse_money(body.amount), body.project or caller.project
    if not amount:
        raise InvalidInput("an amount above zero is needed, like 25.00")

    async def action(tx: PgTransaction) -> tuple[EntryView, Sequence[Effect]]:
        if not await tx.keys.project_exists(project):
            raise NotFound(f"there is no project {project[:80]}; GET /v1/projects lists them")
        transfer = await tx.ledger.fund(project=project, amount=amount, note=body.note, now=clock.now())
        return await views.get_entry(tx.connection, transfer), [MarketChanged()]

    deed = Deed(caller, "wallet.fund", subject=f"{body.amount} to {project}"[:SUBJECT_MAX], project=project)
    return await write(request, action, project=caller.project, status=201, deed=deed)


@router.get("/receipts", response_model=Page[ReceiptSummary])
async def list_receipts(
    request: Request,
    caller: AnyCaller,
    paging: AskedPage,
    job: Annotated[str | None, Query(max_length=80)] = None,
) -> Response:
    """The receipts of the project's jobs, newest first."""
    async with services_of(request).db.connection() as connection:
        receipts = await views.list_receipts(
            connection, project=caller.project, job=job, before=paging.cursor, limit=paging.read
        )
    return reply(paging.page(Page[ReceiptSummary], receipts))


@router.get("/receipts/{receipt}", response_model=Receipt)
async def get_receipt(receipt: str, request: Request, caller: AnyCaller) -> Response:
    """A receipt as it stands in its file; renter and provider may have it."""
    async with services_of(request).db.connection() as connection:
        found = await views.get_receipt(connection, receipt, project=caller.project)
    if found is None:
        raise NotFound(f"there is no receipt {receipt[:80]} of this project")
    return reply(found)
