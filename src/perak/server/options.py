"""Options of `perak exchange` that belong together, each group handed on as one value."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import click

from perak.app.periods import Periods
from perak.domain.errors import InvalidInput
from perak.domain.units import parse_bytes, parse_duration
from perak.server.connections import ConnectionLimits
from perak.server.settings import Quotas

Command: TypeAlias = Callable[..., None]
Decorator: TypeAlias = Callable[[Command], Command]


def periods(command: Command) -> Command:
    """Options for Periods, as `periods`."""
    return _gathered("periods", Periods, _PERIODS)(command)


def quotas(command: Command) -> Command:
    """Options for Quotas, as `quotas`."""
    return _gathered("quotas", _quotas, _QUOTAS)(command)


def connections(command: Command) -> Command:
    """Options for ConnectionLimits, as `connections`."""
    return _gathered("connections", ConnectionLimits, _CONNECTIONS)(command)


def _gathered(
    name: str, make: Callable[..., object], of: Sequence[tuple[str, Decorator]]
) -> Callable[[Command], Command]:
    """Options that the command gets as one value, which `make` makes of theirs by name."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def call(**told: object) -> None:
            own = {field: told.pop(field) for field, _ in of}
            try:
                told[name] = make(**own)
            except InvalidInput as error:
                raise click.ClickException(error.detail) from None
            command(**told)

        wrapped: Command = call
        for _, option in reversed(of):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def _seconds(
    flag: str, field: str, said: str, *, least: float = 1, most: float | None = None
) -> tuple[str, Decorator]:
    """A period; ``--lost-after`` is PERAK_LOST_AFTER_SECONDS in the environment."""
    variable = flag.removeprefix("--").removesuffix("-seconds").upper().replace("-", "_")
    option: Decorator = click.option(
        flag,
        field,
        envvar=f"PERAK_{variable}_SECONDS",
        default=getattr(Periods(), field),
        show_default=True,
        type=click.FloatRange(least, most),
        help=said,
    )
    return field, option


def _quota(flag: str, field: str, default: str, said: str) -> tuple[str, Decorator]:
    variable = flag.removeprefix("--").upper().replace("-", "_")
    option: Decorator = click.option(
        flag, field, envvar=f"PERAK_{variable}", default=default, show_default=True, help=said
    )
    return field, option


def _limit(flag: str, field: str, said: str) -> tuple[str, Decorator]:
    variable = flag.removeprefix("--").upper().replace("-", "_")
    option: Decorator = click.option(
        flag,
        field,
        envvar=f"PERAK_{variable}",
        default=getattr(ConnectionLimits(), field),
        show_default=True,
        type=click.IntRange(1),
        help=said,
    )
    return field, option


def _quotas(*, project_bytes: str, node_bytes: str, kept_seconds: str) -> Quotas:
    return Quotas(
        project_bytes=parse_bytes(project_bytes),
        node_bytes=parse_bytes(node_bytes),
        kept_seconds=parse_duration(kept_seconds),
    )


_PERIODS = (
    _seconds(
        "--beat",
        "beat_seconds",
        "Seconds between two signs of life of a node; three missed ones make it suspected.",
        least=0.1,
        most=60,
    ),
    _seconds("--lost-after", "lost_after_seconds", "Seconds after which a silent node is shown as offline."),
    _seconds(
        "--start-within",
        "start_within_seconds",
        "Seconds after which a run that its node has not started is taken back.",
    ),
    _seconds(
        "--batch-seconds",
        "batch_seconds",
        "How often deferrable jobs that bid are cleared together; 0: never.",
        least=0,
    ),
    _seconds(
        "--report-within",
        "report_within_seconds",
        "Seconds after max_duration, or a stop, in which a node must report a run's end.",
    ),
    _seconds(
        "--certificate-life",
        "certificate_seconds",
        "Seconds that a node's certificate lives; it is renewed when half of them are over.",
        least=2,
        most=31_536_000,
    ),
)
_QUOTAS = (
    _quota(
        "--blob-quota",
        "project_bytes",
        "200GB",
        "Files (work folders, outputs) that are kept for one project.",
    ),
    _quota("--node-blob-quota", "node_bytes", "500GB", "Outputs that are kept of one node."),
    _quota("--blobs-kept", "kept_seconds", "30d", "How long files that no job refers to are kept."),
)
_CONNECTIONS = (
    _limit("--connections", "total", "Connections that are served at once, agents' sessions among them."),
    _limit(
        "--connections-per-address",
        "per_address",
        "Of one address (IPv6: network); behind a proxy, which has one, as many as in all.",
    ),
)
