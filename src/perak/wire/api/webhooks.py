"""Whom a provider wants told."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from perak.wire.api.base import Model, Request


class WebhookCreate(Request):
    """`events` empty: all there are."""

    url: str = Field(min_length=8, max_length=2000)
    events: list[str] = Field(default=[], max_length=20)


class Webhook(Model):
    """Whom a provider wants told of its nodes."""

    id: str
    url: str
    events: list[str]
    created_at: datetime


class WebhookCreated(Webhook):
    """`secret` is shown once; it checks the signature of each message."""

    secret: str


class DeliveryView(Model):
    """A message and how its delivery stands; `id` is its header `webhook-id`."""

    id: str
    event: str
    state: Literal["waiting", "delivered", "failed"]
    attempts: int
    answer: str | None
    created_at: datetime
    next_at: datetime | None
    ended_at: datetime | None


class WebhookDetail(Webhook):
    """With its latest deliveries, newest first."""

    deliveries: list[DeliveryView]
