"""How things look on a terminal: models in, rich tables and panels out."""

from perak.cli.render.of_access import keys, projects, webhook, webhooks
from perak.cli.render.of_doctor import checklist
from perak.cli.render.of_jobs import ending, job, jobs
from perak.cli.render.of_market import node, nodes, offer, offers
from perak.cli.render.of_money import checks, earnings, entries, receipt, receipts, wallet
from perak.cli.render.of_quotes import quote
from perak.cli.render.parts import short_id

__all__ = [
    "checklist",
    "checks",
    "earnings",
    "ending",
    "entries",
    "job",
    "jobs",
    "keys",
    "node",
    "nodes",
    "offer",
    "offers",
    "projects",
    "quote",
    "receipt",
    "receipts",
    "short_id",
    "wallet",
    "webhook",
    "webhooks",
]
