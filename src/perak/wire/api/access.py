"""Keys, projects, secrets and the trail of what was done."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from perak.wire.api.base import Model, Name, Request, Role, Scope


class Me(Model):
    """Who the key belongs to."""

    project: str
    project_name: str
    key: str
    key_name: str
    roles: list[Role]


class KeyCreate(Request):
    """`ttl_seconds`: the key expires after that; None: never, or with the key that makes it."""

    name: Name
    roles: list[Role] = Field(min_length=1)
    project: str | None = None
    scope: Scope = "full"
    ttl_seconds: int | None = Field(default=None, ge=60, le=10 * 366 * 86_400)


class Key(Model):
    id: str
    name: str
    project: str
    roles: list[Role]
    scope: Scope = "full"
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    """To the minute; None: never."""
    revoked_at: datetime | None


class KeyCreated(Key):
    """`secret` is shown once and kept nowhere."""

    secret: str


class ProjectCreate(Request):
    name: Name


class Project(Model):
    id: str
    name: str
    created_at: datetime


class TrailEntry(Model):
    """Who did what: a key, from an address. `outcome` is done, or refused and the problem's code."""

    id: str
    at: datetime
    project: str
    key: str
    key_name: str
    address: str
    action: str
    subject: str
    subject_project: str | None
    outcome: str


class Secret(Model):
    """A secret's name and times; its value is never given back."""

    name: str
    created_at: datetime
    changed_at: datetime

    @property
    def id(self) -> str:
        """A project's secret is known by its name."""
        return self.name


class SealedSecrets(Model):
    """Secrets for one lease, sealed to the node that holds it (`perak.wire.sealing`)."""

    sealed: str
