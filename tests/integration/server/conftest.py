"""Fixtures of the exchange: one that serves, and a node with an open session."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from server_world import Running, ScriptedNode, running_exchange

# Plain lines on stdout, which pytest shows when a test fails.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(),
    ],
    wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
)


@pytest.fixture
async def exchange(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    async with running_exchange(database_url, tmp_path / "exchange") as running:
        yield running


@pytest.fixture
async def node(exchange: Running) -> AsyncIterator[ScriptedNode]:
    """An enrolled node with an open session and a standing offer."""
    scripted = await ScriptedNode.enrol(exchange)
    await scripted.open()
    yield scripted
    await scripted.close()
