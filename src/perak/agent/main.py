"""`perak agent`: reads its options, and hands them to `perak.agent.start`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perak.domain.isolation import DEFAULT_TIER, ISOLATION

if TYPE_CHECKING:
    from perak.agent.settings import AgentSettings

EXIT_OK, EXIT_FAILED, EXIT_UNAVAILABLE, EXIT_REFUSED, EXIT_CONFIG = 0, 1, 69, 77, 78
"""As sysexits.h has them: unavailable, no permission (the exchange turned the node away), configuration."""


@click.group(name="agent", invoke_without_command=True)
@click.option("--exchange", metavar="URL", help="Where the exchange is; by default where the invite says.")
@click.option("--invite", metavar="TOKEN", envvar="PERAK_INVITE", help="Needed once, to become a node.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Keys, journal and runs live here.")
@click.option(
    "--provider-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Prices, hours and what is kept back.",
)
@click.option("--name", help="What the node is called; by default the machine's host name.")
@click.option("--region", help="A country, like DE; it decides the carbon of the electricity.")
@click.option("--price-cpu", metavar="PRICE", help="Per core-hour, like 0.02.")
@click.option("--price-gpu", metavar="PRICE", help="Per GPU-hour, like 0.20.")
@click.option(
    "--tiers",
    metavar="LIST",
    envvar="PERAK_TIERS",
    callback=lambda _ctx, _param, value: tier_names(value),
    help="Sandbox tiers to offer, like bubblewrap,crun.  [default: all that this machine can give]",
)
@click.option(
    "--inspect-cpu",
    is_flag=True,
    help="Where there is no GPU, inspect the processor as a device.  [default: GPUs only]",
)
@click.option("--drain-on-exit", is_flag=True, help="End all runs before leaving; else they live on.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@click.option(
    "--log-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON lines go there; stderr has words for people.",
)
@click.pass_context
def command(
    ctx: click.Context,
    exchange: str | None,
    invite: str | None,
    state_dir: Path | None,
    provider_file: Path | None,
    name: str | None,
    region: str | None,
    price_cpu: str | None,
    price_gpu: str | None,
    tiers: tuple[str, ...] | None,
    inspect_cpu: bool,
    drain_on_exit: bool,
    log_level: str,
    log_file: Path | None,
) -> None:
    """Offer this machine on an exchange and run what is matched to it.

    Without a command it runs here until a signal ends it; `install` makes it a service of the system.
    """
    if ctx.invoked_subcommand is not None:
        return
    from perak.agent.settings import AgentSettings, Limits, default_state_dir

    run(
        AgentSettings(
            state_dir=state_dir or default_state_dir(),
            exchange=exchange,
            invite=invite,
            provider_file=provider_file,
            name=name,
            region=region,
            price_cpu=price_cpu,
            price_gpu=price_gpu,
            tiers=tiers,
            drain_on_exit=drain_on_exit,
            log_level=log_level,
            log_file=log_file,
            limits=Limits(inspect_cpu=inspect_cpu),
        )
    )


def tier_names(text: str | None) -> tuple[str, ...] | None:
    """The tiers in a list with commas; raises click.BadParameter for what is none."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if unknown := [name for name in names if name not in ISOLATION]:
        raise click.BadParameter(f"{unknown[0]!r} is no sandbox tier; they are {', '.join(ISOLATION)}")
    if DEFAULT_TIER not in names:
        raise click.BadParameter(
            f"{DEFAULT_TIER} is the default, which jobs that ask for nothing get, so it can't be left out"
        )
    return names


def run(settings: AgentSettings) -> None:
    """Run one agent and end the process with its exit code.

    The process ends at once: a thread that still unpacks or installs has nothing to say any more, and what
    it leaves is cleared away at the next start.
    """
    import os
    import sys

    from perak.agent.start import start

    code = start(settings)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
