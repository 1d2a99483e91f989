"""Into a running job: a command in a terminal, a port, ssh."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from perak.cli.app import App, Command
from perak.cli.complete import job_names

if TYPE_CHECKING:
    from perak.client.tunnels import Tunnels

_job_argument = click.argument("job", shell_complete=job_names)
_OTHERS_OPTIONS = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command(
    cls=Command, name="exec", example="perak exec train-digits -- bash", context_settings=_OTHERS_OPTIONS
)
@click.option(
    "--tty/--no-tty", "-t/-T", default=None, help="With a terminal; by default where there is one here."
)
@_job_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def exec_(app: App, tty: bool | None, job: str, command: tuple[str, ...]) -> int:
    """Run a command in a running job's sandbox, in a terminal.

    It runs as the job does: its user, its limits, its files and environment, no more. The exit code is the
    command's own. What passes between here and the node is encrypted; the exchange can't read it.
    """
    from perak.cli.terminals import run_command

    command = _after_dashes(command)
    with_terminal = sys.stdin.isatty() and sys.stdout.isatty() if tty is None else tty
    return asyncio.run(_with_tunnels(app, job, lambda tunnels: run_command(tunnels, command, with_terminal)))


@click.command(cls=Command, example="perak forward notebook 8888")
@_job_argument
@click.argument("ports", nargs=-1, required=True, metavar="[LOCAL:]PORT...")
@click.pass_obj
def forward(app: App, job: str, ports: tuple[str, ...]) -> int:
    """Bring a port of a running job to this machine.

    The port is opened on this machine's loopback only, and led to the job's own loopback. LOCAL 0 takes any
    free port. Ctrl-C ends it.
    """
    from perak.cli.terminals import forward_ports, parse_ports

    pairs = parse_ports(ports)
    return asyncio.run(_with_tunnels(app, job, lambda tunnels: forward_ports(tunnels, pairs)))


@click.command(cls=Command, example="ssh -o ProxyCommand='perak tunnel train-digits' perak@job")
@_job_argument
@click.pass_obj
def tunnel(app: App, job: str) -> int:
    """Carry ssh's own bytes; its ProxyCommand.

    stdin and stdout are a connection to an ssh server for this job, which lets in whoever came this far.
    """
    from perak.cli.terminals import carry

    return asyncio.run(_with_tunnels(app, job, carry))


@click.command(
    cls=Command, example="perak ssh train-digits -- -L 8080:localhost:80", context_settings=_OTHERS_OPTIONS
)
@_job_argument
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def ssh(app: App, job: str, arguments: tuple[str, ...]) -> int:
    """Open a running job with this machine's OpenSSH.

    What follows goes to ssh as it is: options first, then a command.
    """
    from perak.cli.terminals import run_ssh

    return run_ssh(app, _id_of(app, job), _after_dashes(arguments))


@click.command(cls=Command, name="ssh-config", example="perak ssh-config train-digits >>~/.ssh/config")
@_job_argument
@click.pass_obj
def ssh_config(app: App, job: str) -> None:
    """Print the lines that ssh, rsync and editors need.

    With them `ssh NAME`, `rsync -a NAME:/work/ .` and an editor's remote windows reach the job.
    """
    from perak.cli.terminals import config_block

    with app.client() as client:
        found = client.job(job)
    click.echo(config_block(app, found.id, name=found.name))


def _after_dashes(words: tuple[str, ...]) -> tuple[str, ...]:
    """Without the `--` that sets a command off, which is left in where a command's options are not ours."""
    return words[1:] if words[:1] == ("--",) else words


def _id_of(app: App, job: str) -> str:
    with app.client() as client:
        return client.job(job).id


async def _with_tunnels(app: App, job: str, action: Callable[[Tunnels], Awaitable[int]]) -> int:
    from perak.client import AsyncClient
    from perak.client.tunnels import Tunnels

    async with AsyncClient(url=app.url, profile=app.profile) as client:
        return await action(Tunnels(client, job))
