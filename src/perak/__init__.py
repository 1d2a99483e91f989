"""Perak: an exchange and a network for second-life GPUs.

``from perak import Client`` is the way in from Python; the names load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perak.client import AsyncClient, Client, PerakError, load_job_file

__all__ = ["AsyncClient", "Client", "PerakError", "load_job_file"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from perak import client

    return getattr(client, name)
