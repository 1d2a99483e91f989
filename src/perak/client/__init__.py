"""The SDK: `Client` and `AsyncClient`, what they raise, and the events of a job.

Names load on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perak.client.aio import AsyncClient
    from perak.client.errors import ConfigError, ExchangeError, ExchangeUnreachable, PerakError
    from perak.client.events import End, JobEvent, Log, State, Warned
    from perak.client.sync import Client
    from perak.wire.jobfile import JobFile, load_job_file

_HOMES = {
    "AsyncClient": "perak.client.aio",
    "Client": "perak.client.sync",
    "ConfigError": "perak.client.errors",
    "End": "perak.client.events",
    "ExchangeError": "perak.client.errors",
    "ExchangeUnreachable": "perak.client.errors",
    "JobEvent": "perak.client.events",
    "JobFile": "perak.wire.jobfile",
    "Log": "perak.client.events",
    "PerakError": "perak.client.errors",
    "State": "perak.client.events",
    "Warned": "perak.client.events",
    "load_job_file": "perak.wire.jobfile",
}
__all__ = [
    "AsyncClient",
    "Client",
    "ConfigError",
    "End",
    "ExchangeError",
    "ExchangeUnreachable",
    "JobEvent",
    "JobFile",
    "Log",
    "PerakError",
    "State",
    "Warned",
    "load_job_file",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
