"""Tools that need no exchange."""

from __future__ import annotations

import click

from perak.cli.app import Command


@click.command(cls=Command, example="perak schema > jobfile.schema.json")
def schema() -> None:
    """Print the JSON Schema of the job file.

    Editors that know YAML check job files with it; in VS Code by `# yaml-language-server: $schema=…` in the
    first line.
    """
    from importlib.resources import files

    click.echo(files("perak.wire.jobfile").joinpath("schema.json").read_text(), nl=False)


@click.command(cls=Command, example='eval "$(perak completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script for shell completion.

    Put the example's line into ~/.bashrc or ~/.zshrc; for fish:
    perak completion fish > ~/.config/fish/completions/perak.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "perak", "_PERAK_COMPLETE").source())
