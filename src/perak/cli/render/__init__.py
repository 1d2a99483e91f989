"""How things look on a terminal: models in, rich tables and panels out."""

from perak.cli.render.of_access import keys, projects, webhook, webhooks
from perak.cli.render.of_doctor import checklist
from perak.cli.render.of_jobs import ending, job, jobs
from perak.cli.render.of_market import node, nodes, offer, offers
from perak.cli.render.of_money import checks, earnings, entries, receipt, receipts, wallet
from perak.cli.render.of_quotes import held_quote, prices, quote, why
from perak.cli.render.parts import short_id

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
