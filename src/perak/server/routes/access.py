"""Keys and projects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from fastapi import APIRouter, Request
from starlette.responses import Response

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.views import access as views
from perak.app.effects import Effect
from perak.app.records import Caller
from perak.domain.errors import NotAllowed, NotFound
from perak.server import clock
from perak.server.access import services_of
from perak.server.auth import AnyCaller, Operator, new_secret, secret_hash
from perak.server.paging import AskedPage
from perak.server.trail import Deed
from perak.server.writes import reply, write
from perak.wire.api import Key, KeyCreate, KeyCreated, Page, Project, ProjectCreate

router = APIRouter(prefix="/v1", tags=["keys and projects"])


@router.get("/keys", response_model=Page[Key])
async def list_keys(request: Request, caller: AnyCaller, paging: AskedPage) -> Response:
    """The project's keys, revoked ones included; the operator sees those of all projects."""
    async with services_of(request).db.connection() as connection:
        keys = await views.list_keys(
            connection, project=_visible(caller), before=paging.cursor, limit=paging.read
        )
    return reply(paging.page(Page[Key], keys))


@router.post("/keys", status_code=201, response_model=KeyCreated)
async def create_key(body: KeyCreate, request: Request, caller: AnyCaller) -> Response:
    """Make a key with roles that the caller's own has; its secret is shown once."""
    services = services_of(request)
    project, secret, now = body.project or caller.project, new_secret(), clock.now()
    expires_at = _expiry(caller, body.ttl_seconds, now)

    async def action(tx: PgTransaction) -> tuple[KeyCreated, Sequence[Effect]]:
        _check_may_create(caller, body, project)
        if not await tx.keys.project_exists(project):
            raise NotFound(f"there is no project {project[:80]}; GET /v1/projects lists them")
        id, roles = services.context.new_id("key"), list(dict.fromkeys(body.roles))
        await tx.keys.insert(
            id=id,
            project=project,
            name=body.name,
            secret_hash=secret_hash(secret),
            roles=roles,
            now=now,
            scope=body.scope,
            expires_at=expires_at,
        )
        key = KeyCreated(
            id=id,
            name=body.name,
            project=project,
            roles=roles,
            scope=body.scope,
            created_at=now,
            expires_at=expires_at,
            revoked_at=None,
            secret=secret,
        )
        return key, ()

    deed = Deed(caller, "key.create", project=project)
    return await write(request, action, project=caller.project, status=201, secret=True, deed=deed)


@router.delete("/keys/{key}", response_model=Key)
async def revoke_key(key: str, request: Request, caller: AnyCaller) -> Response:
    """Revoke a key of the project, at once and for good; the operator may revoke any."""

    async def action(tx: PgTransaction) -> tuple[Key, Sequence[Effect]]:
        if not await tx.keys.revoke(key, project=_visible(caller), now=clock.now()):
            raise NotFound(f"there is no key {key[:80]} in this project; `perak key ls` lists them")
        revoked = await views.get_key(tx.connection, key)
        assert revoked is not None, "it was found above"
        return revoked, ()

    deed = Deed(caller, "key.revoke", subject=key)
    response = await write(request, action, project=caller.project, deed=deed)
    services_of(request).hub.keys_changed()
    return response


@router.get("/projects", response_model=Page[Project])
async def list_projects(request: Request, caller: Operator, paging: AskedPage) -> Response:
    async with services_of(request).db.connection() as connection:
        projects = await views.list_projects(connection, before=paging.cursor, limit=paging.read)
    return reply(paging.page(Page[Project], projects))


@router.post("/projects", status_code=201, response_model=Project)
async def create_project(body: ProjectCreate, request: Request, caller: Operator) -> Response:
    """Make a project, with an empty wallet."""
    id, now = services_of(request).context.new_id("project"), clock.now()

    async def action(tx: PgTransaction) -> tuple[Project, Sequence[Effect]]:
        await tx.keys.insert_project(id=id, name=body.name, now=now)
        return Project(id=id, name=body.name, created_at=now), ()

    deed = Deed(caller, "project.create")
    return await write(request, action, project=caller.project, status=201, deed=deed)


def _visible(caller: Caller) -> str | None:
    return None if "operator" in caller.roles else caller.project


def _expiry(caller: Caller, ttl_seconds: int | None, now: datetime) -> datetime | None:
    """A key that expires makes none that outlives it."""
    asked = None if ttl_seconds is None else now + timedelta(seconds=ttl_seconds)
    return min((each for each in (asked, caller.expires_at) if each is not None), default=None)


def _check_may_create(caller: Caller, body: KeyCreate, project: str) -> None:
    if "operator" in caller.roles:
        return
    if project != caller.project:
        raise NotAllowed("only an operator makes keys of another project")
    if beyond := set(body.roles) - caller.roles:
        raise NotAllowed(f"your key does not have the role {sorted(beyond)[0]} itself; ask your operator")
