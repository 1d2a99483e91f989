"""How things look on a terminal: models in, rich tables and panels out.

Names load on first use: a passport's picture needs much that a quote's does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perak.cli.render.of_access import keys, projects, webhook, webhooks
    from perak.cli.render.of_doctor import checklist
    from perak.cli.render.of_jobs import ending, job, jobs
    from perak.cli.render.of_market import node, nodes, offer, offers
    from perak.cli.render.of_money import checks, earnings, entries, receipt, receipts, wallet
    from perak.cli.render.of_quotes import held_quote, prices, quote, why
    from perak.cli.render.parts import short_id

_HOMES = {
    "checklist": "of_doctor",
    "checks": "of_money",
    "earnings": "of_money",
    "ending": "of_jobs",
    "entries": "of_money",
    "held_quote": "of_quotes",
    "job": "of_jobs",
    "jobs": "of_jobs",
    "keys": "of_access",
    "node": "of_market",
    "nodes": "of_market",
    "offer": "of_market",
    "offers": "of_market",
    "prices": "of_quotes",
    "projects": "of_access",
    "quote": "of_quotes",
    "receipt": "of_money",
    "receipts": "of_money",
    "short_id": "parts",
    "wallet": "of_money",
    "webhook": "of_access",
    "webhooks": "of_access",
    "why": "of_quotes",
}
__all__ = [
    "checklist",
    "checks",
    "earnings",
    "ending",
    "entries",
    "held_quote",
    "job",
    "jobs",
    "keys",
    "node",
    "nodes",
    "offer",
    "offers",
    "prices",
    "projects",
    "quote",
    "receipt",
    "receipts",
    "short_id",
    "wallet",
    "webhook",
    "webhooks",
    "why",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
