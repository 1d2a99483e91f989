"""The HTTP API, a module for each subject."""

from perak.server.routes import (
    access,
    blobs,
    checklists,
    earnings,
    exchange,
    jobs,
    money,
    node_files,
    nodes,
    offers,
    prices,
    quotes,
    secrets,
    trail,
    tunnels,
    webhooks,
)

ROUTERS = (
    exchange.router,
    jobs.router,
    tunnels.router,
    quotes.router,
    blobs.router,
    money.router,
    earnings.router,
    nodes.router,
    offers.router,
    prices.router,
    checklists.router,
    access.router,
    secrets.router,
    trail.router,
    node_files.router,
    webhooks.router,
)
