"""Invite, enrol, pause and revoke nodes; set their offers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from perak.app.effects import Effect, JobChanged, MarketChanged, NodeChanged
from perak.app.ports import Ids, Transaction
from perak.app.reclaim import ReclaimStore, plan, tell
from perak.app.records import Caller, NodeRecord
from perak.domain.errors import Conflict, InvalidInput, NotAuthenticated, NotFound
from perak.domain.lifecycle import MODE, NODE, OFFER


async def invite(
    tx: Transaction,
    *,
    caller: Caller,
    secret_hash: bytes,
    uses: int,
    ttl_seconds: int,
    new_id: Ids,
    now: datetime,
) -> tuple[str, datetime]:
    """Make an invite into the caller's project. Its id and when it expires."""
    id, expires = new_id("invite"), now + timedelta(seconds=ttl_seconds)
    await tx.nodes.insert_invite(
        id=id, project=caller.project, secret_hash=secret_hash, uses=uses, now=now, expires_at=expires
    )
    return id, expires


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNode:
    """What a node brings, and the certificate that the exchange's CA made for it."""

    id: str
    name: str
    sign_key: bytes
    seal_key: bytes
    certificate_chain: str
    certificate_expires_at: datetime


async def enrol(tx: Transaction, *, node: NewNode, secret_hash: bytes, now: datetime) -> None:
    """Enrol a node by an invite. Raises NotAuthenticated for one that is unknown, used up or expired."""
    project = await tx.nodes.take_invite(secret_hash=secret_hash, now=now)
    if project is None:
        raise NotAuthenticated("this invite is unknown, used up or expired; ask for a new one")
    await tx.nodes.insert(
        id=node.id,
        project=project,
        name=node.name,
        sign_key=node.sign_key,
        seal_key=node.seal_key,
        certificate_chain=node.certificate_chain,
        certificate_expires_at=node.certificate_expires_at,
        now=now,
    )


async def set_mode(
    tx: Transaction,
    reclaims: ReclaimStore,
    *,
    node_id: str,
    project: str | None,
    mode: str,
    within_seconds: int | None = None,
    now: datetime,
) -> list[Effect]:
    """Pause, drain or resume a node; `project` None: of any. Its live runs go on to their end either way.

    `within_seconds`: the owner takes a draining node back then, and what still runs there is stopped. Raises
    InvalidInput where that is sooner than the offer promises, or the node is not to be drained.
    """
    if within_seconds is not None and mode != "draining":
        raise InvalidInput("`within_seconds` goes with `draining`: only a node that is drained is taken back")
    node = await _own(tx, node_id, project)
    if node.state == "revoked":
        raise Conflict(f"the node {node.name} was revoked, for good; enrol the machine again")
    if node.mode != mode:
        event = "resumed" if mode == "accepting" else mode
        await tx.nodes.set_mode(node_id, mode=MODE.step(node.mode, event))
    if mode == "draining" and (node.mode != mode or within_seconds is not None):
        return [*await plan(tx, reclaims, node, within_seconds=within_seconds, now=now), MarketChanged()]
    if mode != "draining":
        await reclaims.plan(node_id, at=None)
        return [*await tell(tx, reclaims, node=node_id, now=now), MarketChanged()]
    return [MarketChanged()]


async def revoke(tx: Transaction, *, node_id: str, project: str | None, now: datetime) -> list[Effect]:
    """Take a node's identity for good: it reports nothing more; its runs are fenced after their grace."""
    node = await _own(tx, node_id, project)
    if node.state == "revoked":
        return []
    await tx.nodes.set_state(node_id, state=NODE.step(node.state, "revoked"))
    effects: list[Effect] = [NodeChanged(node_id), MarketChanged()]
    for job in await tx.leases.suspect(node=node_id, now=now):
        detail = f"node {node.name} was revoked by its owner; after the job's grace it is run again elsewhere"
        await tx.jobs.event(job, kind="warning", detail=detail, now=now)
        effects.append(JobChanged(job))
    return effects


async def _own(tx: Transaction, node_id: str, project: str | None) -> NodeRecord:
    node = await tx.nodes.lock(node_id)
    if node is None or project not in (None, node.project):
        raise NotFound(f"there is no node {node_id[:80]} in this project; `perak node ls` lists them")
    return node


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferSetting:
    """What a provider sets: None leaves a thing as it is; a price "default" is the provider file's."""

    state: str | None
    price_gpu: int | str | None
    price_cpu: int | str | None


async def set_offer(
    tx: Transaction, *, caller: Caller, offer_id: str, setting: OfferSetting, now: datetime
) -> list[Effect]:
    """Pause, resume or price an offer; leases that run keep their price."""
    offer = await tx.offers.lock(offer_id, project=caller.project)
    if offer is None:
        raise NotFound(f"there is no offer {offer_id} in this project; `perak offer ls` lists them")
    state = offer.state
    if setting.state is not None and setting.state != state:
        state = OFFER.step(state, "paused" if setting.state == "paused" else "resumed")
    await tx.offers.set(
        offer_id,
        state=state,
        price_gpu=setting.price_gpu if isinstance(setting.price_gpu, int) else None,
        keep_price_gpu=setting.price_gpu is None,
        price_cpu=setting.price_cpu if isinstance(setting.price_cpu, int) else None,
        keep_price_cpu=setting.price_cpu is None,
        now=now,
    )
    return [MarketChanged()]
