"""The exchange as an ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.routing import BaseRoute

from perak.server import loops
from perak.server.envelope import Envelope
from perak.server.problems import add_handlers
from perak.server.routes import ROUTERS
from perak.server.services import Services
from perak.wire.api import Problem

DESCRIPTION = "An exchange for second-life GPUs: jobs, offers, money and receipts."
SHARED: dict[str, Any] = {
    "docs_url": None,  # These pages load scripts from elsewhere.
    "redoc_url": None,
    "telemetry": {"tracing": False, "metrics": False, "logs": False},  # Ours are in envelope.py.
    "responses": {"default": {"model": Problem, "description": "What went wrong, and what to do (RFC 9457)"}},
}
"""What every application here is made with."""


def create_app(services: Services) -> FastAPI:
    """The API on `services`; its loops run while the application does."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with loops.running(services):
            yield

    app = FastAPI(
        title="Perak",
        version=version("perak"),
        description=DESCRIPTION,
        lifespan=lifespan,
        **SHARED,
    )
    app.state.services = services
    app.router.routes.extend(_routes())
    app.add_middleware(Envelope, metrics=services.metrics, patience=services.patience)
    add_handlers(app)
    return app


@cache
def _routes() -> tuple[BaseRoute, ...]:
    """All routes, with what they validate: it takes a third of a second to make, and no route keeps anything
    of one exchange, so that those of one process share them."""
    app = FastAPI(openapi_url=None, **SHARED)
    for router in ROUTERS:
        app.include_router(router)
    return tuple(app.routes)
