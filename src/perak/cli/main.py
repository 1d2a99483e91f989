"""The command line: a table of commands that load on first use, so that help comes at once."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from perak.cli.app import App
from perak.cli.exits import EXIT_CODES_HELP, report

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Jobs": {
        "run": ("perak.cli.jobs:run", "Run a job and follow it to its end."),
        "quote": ("perak.cli.jobs:quote", "Show what a job would cost, take, draw and emit on each offer."),
        "why": (
            "perak.cli.jobs:why",
            "Say why a job was placed where it is and not elsewhere, or why it waits.",
        ),
        "ps": ("perak.cli.jobs:ps", "List jobs, newest first."),
        "show": ("perak.cli.jobs:show", "Show a job, its runs and the steps of its life."),
        "logs": ("perak.cli.jobs:logs", "Print the log of a job as it is."),
        "cancel": ("perak.cli.jobs:cancel", "Cancel a job."),
        "exec": ("perak.cli.terminal:exec_", "Run a command in a running job's sandbox, in a terminal."),
        "forward": ("perak.cli.terminal:forward", "Bring a port of a running job to this machine."),
        "ssh": ("perak.cli.terminal:ssh", "Open a running job with this machine's OpenSSH."),
        "ssh-config": ("perak.cli.terminal:ssh_config", "Print the lines that ssh, rsync and editors need."),
        "tunnel": ("perak.cli.terminal:tunnel", "Carry ssh's own bytes; its ProxyCommand."),
        "download": ("perak.cli.jobs:download", "Download the outputs of a job."),
        "schema": ("perak.cli.tools:schema", "Print the JSON Schema of the job file."),
        "advise": (
            "perak.cli.carbon:advise",
            "Say whether a used card is greener than the new one that would do the same work.",
        ),
        "sim": ("perak.cli.sim:sim", "What would have been: policies tried on traces."),
    },
    "Market and money": {
        "offer": ("perak.cli.market:offer", "What providers offer."),
        "node": ("perak.cli.market:node", "Machines of a provider."),
        "market": ("perak.cli.clear:market", "The market's own code, on files."),
        "prices": (
            "perak.cli.prices:prices",
            "Show what was offered, bid, cancelled and paid, by class and hour.",
        ),
        "grid": (
            "perak.cli.carbon:grid",
            "Show how much carbon electricity carries, now and in the hours ahead.",
        ),
        "report": ("perak.cli.carbon:report", "Sums of a project's receipts, for a company's own report."),
        "earnings": ("perak.cli.earnings:earnings", "What a provider's nodes earned."),
        "wallet": ("perak.cli.money:wallet", "What a project has, and what moved."),
        "webhook": (
            "perak.cli.webhooks:webhook",
            "Who is told when a node is offline, back, hot, cool or refused.",
        ),
        "receipt": ("perak.cli.money:receipt", "Signed accounts of finished runs."),
        "passport": ("perak.cli.passport:passport", "What can be proved about a card."),
    },
    "Access": {
        "secret": ("perak.cli.secrets:secret", "Tokens and passwords that jobs are given by name."),
        "keygen": ("perak.cli.secrets:keygen", "The key that `encrypt` encrypts to."),
        "login": ("perak.cli.login:login", "Remember an exchange and a key."),
        "key": ("perak.cli.access:key", "Keys of persons and programs."),
        "trail": ("perak.cli.trail:trail", "Who did what with keys, money, secrets and nodes."),
        "project": ("perak.cli.access:project", "Who owns jobs, keys and money."),
        "completion": ("perak.cli.tools:completion", "Print the script for shell completion."),
    },
    "Running Perak": {
        "up": ("perak.server.up:command", "Run an exchange and an agent on this machine."),
        "exchange": ("perak.server.main:command", "Serve an exchange on a PostgreSQL database."),
        "agent": ("perak.cli.agent:agent", "Offer this machine to an exchange."),
        "audit": ("perak.server.audit_command:command", "Recompute every balance and receipt."),
        "backup": ("perak.server.backup_command:backup", "Copy an exchange into a folder."),
        "restore": ("perak.server.backup_command:restore", "Bring a back-up to life."),
    },
}
COLLECT_AFTER = 100_000
"""Objects that are made before the first look for cycles: more than a command makes while it loads, which
takes a twentieth longer otherwise."""
GC_USUAL = gc.get_threshold()
_ALL = {name: entry for section in COMMANDS.values() for name, entry in section.items()}


class LazyGroup(click.Group):
    """The top of the command line. A command's module loads when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_ALL)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ALL:
            return None
        if cmd_name in COMMANDS["Running Perak"]:
            gc.set_threshold(*GC_USUAL)  # These stay.
        module, _, attribute = _ALL[cmd_name][0].partition(":")
        try:
            command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("perak"):
                raise
            extra = {"up": "up", "exchange": "exchange", "agent": "agent"}.get(cmd_name, "up")
            raise click.ClickException(
                f"`perak {cmd_name}` needs {error.name}, which is not installed. "
                f"Run: pip install 'perak[{extra}]'"
            ) from None
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _ALL and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], _ALL, n=1)
            meant = f" Did you mean `perak {near[0]}`?" if near else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=text) for name, (_, text) in _ALL.items() if name.startswith(incomplete)
        ]
        options = click.Command.shell_complete(self, ctx, incomplete) if incomplete.startswith("-") else []
        return names + options

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its result is the exit code, and every error becomes a message and one."""
        try:
            code = super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            code = report(error, as_json=_asks_for_json(ctx))
        ctx.exit(code if isinstance(code, int) else 0)


def _asks_for_json(ctx: click.Context) -> bool:
    return isinstance(ctx.obj, App) and ctx.obj.as_json


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"perak {version('perak')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    name="perak",
    epilog=EXIT_CODES_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--url", metavar="URL", help="The exchange to use, instead of PERAK_URL or a profile.")
@click.option("--profile", metavar="NAME", help="The profile of `perak login` to use.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; errors too, as one object on stderr.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(ctx: click.Context, url: str | None, profile: str | None, as_json: bool) -> None:
    """Perak: run AI jobs on second-life GPUs, by the second, with a signed receipt.

    Start everything on this machine with `perak up`, then `perak run job.yaml`.
    """
    app = ctx.ensure_object(App)
    app.url, app.profile = url or app.url, profile or app.profile
    app.as_json = app.as_json or as_json


def main() -> None:
    """The entry point of `perak`."""
    gc.set_threshold(COLLECT_AFTER, *GC_USUAL[1:])
    # httpx has a command of its own, which loads what colours its output; without that, it has none.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    cli.main(prog_name="perak")


if __name__ == "__main__":
    main()
