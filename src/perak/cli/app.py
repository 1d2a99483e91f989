"""What every command shares: which exchange, how to print, and what a command looks like."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from perak.cli.exits import printable

if TYPE_CHECKING:
    import httpx
    from pydantic import BaseModel
    from rich.console import Console, RenderableType

    from perak.client import Client

T = TypeVar("T", bound="BaseModel")

SENTENCE_MAX = 1000
"""Longer than what any command says of itself in a list."""
PIPED_WIDTH = 200
"""Columns where the output is no terminal: tables are not to be cut for a reader that is a program."""


@dataclass(slots=True)
class App:
    """The global options, and what follows from them."""

    url: str | None = None
    profile: str | None = None
    as_json: bool = False
    transport: httpx.BaseTransport | None = None
    """In the place of the network."""

    def client(self) -> Client:
        """A client of the chosen exchange; use it in a `with`."""
        from perak.client import Client

        return Client(url=self.url, profile=self.profile, transport=self.transport)

    def emit(self, value: BaseModel | Iterable[BaseModel], show: Callable[[], RenderableType | None]) -> None:
        """Print `value` as one JSON document, or what `show` makes of it."""
        if self.as_json:
            click.echo(to_json(value))
            return
        shown = show()
        if isinstance(shown, str):
            click.echo(printable(shown))
        elif shown is not None:
            print_rich(shown)

    def emit_all(
        self, listed: Callable[[Client], Iterable[T]], show: Callable[[list[T]], RenderableType]
    ) -> list[T]:
        """Print what the exchange lists; the same, for who has more to say of it."""
        with self.client() as client:
            found = list(listed(client))
        self.emit(found, lambda: show(found))
        return found

    def emit_secret(self, made: BaseModel, secret: str, *notes: str) -> None:
        """Print a secret that is shown once: alone on stdout, for a program to take; the notes beside it."""
        self.emit(made, lambda: secret)
        if not self.as_json:
            for note in notes:
                click.echo(printable(note), err=True)

    def say(self, text: str) -> None:
        """A line for people; silent with --json."""
        if not self.as_json:
            click.echo(printable(text))


def to_json(value: BaseModel | Iterable[BaseModel]) -> str:
    """One JSON document, indented."""
    import json

    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump_json(indent=2)
    return json.dumps([item.model_dump(mode="json") for item in value], indent=2)


def console(*, err: bool = False) -> Console:
    """A console on the present stdout or stderr, with colour on a terminal only."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, soft_wrap=False)


def print_rich(shown: RenderableType, *, err: bool = False) -> None:
    """Print a table or panel; without the spaces at the ends of lines where a program reads."""
    out = console(err=err)
    if out.is_terminal:
        out.print(shown)
        return
    with out.capture() as captured:
        out.print(shown)
    for line in captured.get().splitlines():
        click.echo(line.rstrip(), err=err)


def is_interactive() -> bool:
    """Whether someone can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


class Command(click.Command):
    """A command with --json and, at the end of its help, an example."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        kwargs["epilog"] = f"\b\nExample:\n  {example}"
        super().__init__(*args, **kwargs)
        self.params.append(_json_option())


class Group(click.Group):
    """A noun with its verbs, each told of in a whole sentence: click cuts them at the end of the line."""

    command_class = Command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        verbs = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, verb.get_short_help_str(limit=SENTENCE_MAX)) for name, verb in verbs if verb is not None
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _json_option() -> click.Option:
    def remember(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted:
            ctx.ensure_object(App).as_json = True

    return click.Option(
        ["--json", "as_json"], is_flag=True, expose_value=False, callback=remember, help="Print JSON."
    )
