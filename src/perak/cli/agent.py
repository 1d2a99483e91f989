"""The agent as a service: install, upgrade, look, remove. Without a command `perak agent` runs here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perak.agent.main import command as agent

if TYPE_CHECKING:
    from perak.agent.install import Places, Systemctl

__all__ = ["agent"]

GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd")
"""Nodes that NVIDIA's and AMD's drivers make."""

_state = click.option(
    "--state-dir", type=click.Path(path_type=Path), help="Keys, journal and runs live here."
)
_from = click.option(
    "--from",
    "requirement",
    metavar="WHAT",
    help="A version, a wheel or a folder.  [default: the newest; install: this version]",
)


@agent.command("install")
@click.option("--exchange", metavar="URL", help="Where the exchange is; by default where the invite says.")
@click.option("--invite", metavar="TOKEN", envvar="PERAK_INVITE", help="Needed once, to become a node.")
@click.option(
    "--provider-file", type=click.Path(path_type=Path, dir_okay=False, exists=True, resolve_path=True)
)
@click.option("--name", help="What the node is called; by default the machine's host name.")
@click.option("--region", help="A country, like DE.")
@click.option("--price-cpu", metavar="PRICE", help="Per core-hour, like 0.02.")
@click.option("--price-gpu", metavar="PRICE", help="Per GPU-hour, like 0.20.")
@click.option("--tiers", metavar="LIST", help="Sandbox tiers to offer; by default all that work.")
@click.option("--inspect-cpu", is_flag=True, help="Where there is no GPU, inspect the processor as a device.")
@_state
@_from
def install(
    invite: str | None,
    state_dir: Path | None,
    requirement: str | None,
    inspect_cpu: bool,
    **given: str | Path | None,
) -> int:
    """Start the agent at every boot, as a service of systemd.

    Root gets a system service, anyone else one of their own. Safe to repeat, e.g. with other prices.
    """
    from perak.agent.install import install, make_version

    options = [
        part
        for name, value in given.items()
        if value is not None
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    if inspect_cpu:
        options.append("--inspect-cpu")
    make = make_version(_requirement(requirement, this=True))
    ready = install(_places(state_dir), options, invite=invite, make=make, systemctl=_systemctl())
    click.echo("The agent runs and starts at boot." if ready else "Installed, but not ready yet.")
    if os.geteuid() != 0:
        click.echo("To have it run while you are logged out: loginctl enable-linger", err=True)
    if not ready:
        click.echo(f"See: journalctl {_user()}-u perak-agent", err=True)
    return 0 if ready else 1


@agent.command("upgrade")
@_state
@_from
def upgrade(state_dir: Path | None, requirement: str | None) -> None:
    """Put a newer version in place; the old one comes back if it isn't ready within 90 s. Runs live on."""
    from perak.agent.install import make_version, upgrade

    make = make_version(_requirement(requirement, this=False))
    folder = upgrade(_places(state_dir), make=make, systemctl=_systemctl())
    click.echo(f"Upgraded: {folder}")


@agent.command("status")
@_state
def status(state_dir: Path | None) -> int:
    """Say whether the service runs, and of which version."""
    places, state = _places(state_dir), _systemctl().state()
    installed = places.current.resolve() if places.current.exists() else "not installed"
    click.echo(f"service  {state}\nversion  {installed}\nunit     {places.unit}\nstate    {places.state}")
    return 0 if state == "active" else 3


@agent.command("uninstall")
@click.option("--now", is_flag=True, help="Don't drain the node first: its runs are lost.")
@click.option("--purge", is_flag=True, help="Remove keys, journal and runs too; the node can't come back.")
@_state
@click.pass_context
def uninstall(ctx: click.Context, now: bool, purge: bool, state_dir: Path | None) -> None:
    """Drain the node, then remove the service and its software."""
    from perak.agent.install import uninstall

    places = _places(state_dir)
    if not now:
        _drain(ctx, places)
    uninstall(places, systemctl=_systemctl(), purge=purge)
    click.echo("The agent is removed." if purge else f"The agent is removed; its keys are in {places.state}.")


def _drain(ctx: click.Context, places: Places) -> None:
    """By the owner's key, if this machine has one: the node's own can't set its mode."""
    from perak.agent.identity import load
    from perak.cli.app import App
    from perak.cli.market import wait_until_drained
    from perak.client.errors import PerakError

    identity = load(places.state)
    if identity is None:
        return
    app = ctx.ensure_object(App)
    try:
        with app.client() as client:
            changed = client.node_set(identity.node, "draining")
    except PerakError as error:
        raise click.ClickException(
            f"The node can't be drained from here: {error} Run `perak node drain {identity.node} --wait` "
            "where you have a provider's key, then this with --now."
        ) from None
    click.echo(f"Draining {changed.name}: {changed.live_leases} runs to go.", err=True)
    wait_until_drained(app, identity.node)


def _requirement(given: str | None, *, this: bool) -> str:
    from importlib.metadata import version

    name = f"perak[{_extras()}]"
    if given is None:
        return f"{name}=={version('perak')}" if this else name
    if given[:1].isdigit():
        return f"{name}=={given}"
    if Path(given).exists():
        return f"{name} @ {Path(given).resolve().as_uri()}"
    return given


def _extras() -> str:
    """With what inspects and wipes GPUs, 190 MB, where there is a driver of one."""
    return "agent,inspect" if any(Path(each).exists() for each in GPU_DRIVERS) else "agent"


def _places(state_dir: Path | None) -> Places:
    from perak.agent.install import Places
    from perak.agent.settings import default_state_dir

    return Places.default((state_dir or default_state_dir()).absolute())


def _systemctl() -> Systemctl:
    from perak.agent.install import Systemctl

    return Systemctl()


def _user() -> str:
    return "" if os.geteuid() == 0 else "--user "
