"""The first start: the operator's project with a key that may do everything."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.views.access import project_named
from perak.app.ports import Ids
from perak.server.auth import new_secret, secret_hash
from perak.server.settings import Settings

PROJECT = "default"
KEY = "operator"
ROLES = ("renter", "provider", "operator")


@dataclass(frozen=True, slots=True)
class FirstStart:
    """What a first start has to tell: the key's secret, which is shown once. None: the caller knows it."""

    operator_key: str | None = field(repr=False)


async def set_up(
    tx: PgTransaction, settings: Settings, *, new_id: Ids, first: bool, now: datetime
) -> FirstStart | None:
    """Make the default project at the first start, and sure of the key that the settings name."""
    if first:
        project = new_id("project")
        await tx.keys.insert_project(id=project, name=PROJECT, now=now)
        if settings.fund:
            await tx.ledger.fund(project=project, amount=settings.fund, note="at the first start", now=now)
        secret = settings.operator_key or new_secret()
        await _insert_key(tx, project, secret, new_id=new_id, now=now)
        return FirstStart(None if settings.operator_key else secret)
    if settings.operator_key and not await tx.keys.find(secret_hash=secret_hash(settings.operator_key)):
        found = await project_named(tx.connection, PROJECT)
        assert found is not None, "the first start makes the default project"
        await _insert_key(tx, found.id, settings.operator_key, new_id=new_id, now=now)
    return None


async def _insert_key(tx: PgTransaction, project: str, secret: str, *, new_id: Ids, now: datetime) -> None:
    await tx.keys.insert(
        id=new_id("key"), project=project, name=KEY, secret_hash=secret_hash(secret), roles=ROLES, now=now
    )
