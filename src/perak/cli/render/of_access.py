"""Keys, projects and webhooks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from perak.cli.render.parts import Fitted, at_time, fact_table, new_table, plain, short_id, state_text

if TYPE_CHECKING:
    from perak.wire import api


def keys(found: Iterable[api.Key]) -> RenderableType:
    rows = [
        (
            short_id(key.id),
            plain(key.name),
            ", ".join(key.roles),
            key.scope,
            short_id(key.project),
            at_time(key.created_at),
            at_time(key.last_used_at) if key.last_used_at else "never",
            _end(key),
        )
        for key in found
    ]
    columns = ("ID", "NAME", "ROLES", "SCOPE", "PROJECT", "CREATED", "LAST USED", "ENDS")
    return Fitted(columns, rows, spare=("CREATED", "PROJECT", "LAST USED"))


def _end(key: api.Key) -> str:
    if key.revoked_at:
        return f"revoked {at_time(key.revoked_at)}"
    return at_time(key.expires_at) if key.expires_at else "-"


def projects(found: Iterable[api.Project]) -> RenderableType:
    table = new_table("ID", "NAME", "CREATED")
    for project in found:
        table.add_row(project.id, plain(project.name), at_time(project.created_at))
    return table


def webhooks(found: Iterable[api.Webhook]) -> RenderableType:
    table = new_table("ID", "ADDRESS", "EVENTS")
    for webhook in found:
        table.add_row(short_id(webhook.id), plain(webhook.url), plain(", ".join(webhook.events)))
    return table


def webhook(found: api.WebhookDetail) -> RenderableType:
    facts = fact_table(
        ("webhook", found.id),
        ("address", found.url),
        ("events", ", ".join(found.events)),
        ("added", at_time(found.created_at)),
    )
    table = new_table("MESSAGE", "EVENT", "AT", "STATE", ">TRIES", "NEXT", "ANSWER")
    for sent in found.deliveries:
        table.add_row(
            plain(sent.id),
            plain(sent.event),
            at_time(sent.created_at),
            state_text(sent.state),
            str(sent.attempts),
            at_time(sent.next_at) if sent.next_at else "-",
            plain(sent.answer or "-"),
        )
    return Group(facts, Text(), table)
