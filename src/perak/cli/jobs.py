"""The everyday verbs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perak.cli.app import App, Command
from perak.cli.complete import job_names

if TYPE_CHECKING:
    from perak.wire.jobfile import JobFile

PS_LIMIT_DEFAULT = 50

_job_argument = click.argument("job", shell_complete=job_names)
_file_argument = click.argument("file", type=click.Path(path_type=Path))
_env_option = click.option(
    "--env", "env", multiple=True, metavar="NAME=VALUE", help="Set a variable of the job; may be repeated."
)


@click.command(cls=Command, example="perak run examples/hello/job.yaml --env NAME=Ada")
@_file_argument
@_env_option
@click.option("--detach", "-d", is_flag=True, help="Submit, print the job's id, and return.")
@click.option("--quote", metavar="ID", help="Run at a quote that `perak quote --hold` keeps.")
@click.pass_obj
def run(app: App, file: Path, env: tuple[str, ...], detach: bool, quote: str | None) -> int:
    """Run a job and follow it to its end.

    The job's log goes to stdout as it is, notices go to stderr. The exit code is the job's own. Ctrl-C asks
    whether to cancel the job or to leave it running. With --json the log goes to stderr, and stdout has the
    job as it ended.
    """
    from perak.cli.follow import follow_to_end, upload_progress

    job_file = _load(file, env)
    with app.client() as client:
        with upload_progress("Sending the work folder") as progress:
            job = client.submit(job_file, progress=progress, quote=quote)
        if detach:
            app.emit(job, lambda: job.id)
            return 0
        return follow_to_end(app, client, job)


@click.command(cls=Command, example="perak quote examples/train-digits/job.yaml")
@_file_argument
@_env_option
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw cost, time and carbon (png, svg, pdf).",
)
@click.option("--hold", is_flag=True, help="Keep the best offer for a minute, for `perak run --quote`.")
@click.pass_obj
def quote(app: App, file: Path, env: tuple[str, ...], plot: Path | None, hold: bool) -> None:
    """Show what a job would cost, take, draw and emit on each offer.

    For each offer that doesn't fit, it says in what, and what would let more of them fit. No money moves.
    """
    from perak.cli import render

    job_file = _load(file, env)
    with app.client() as client:
        if hold:
            held = client.hold_quote(job_file)
            app.emit(held, lambda: render.held_quote(held))
            return
        quoted = client.quote(job_file)
    app.emit(quoted, lambda: render.quote(quoted))
    if plot is not None:
        from perak.cli.plots import plot_quote

        plot_quote(plot, quoted)
        app.say(f"The picture is in {plot}")


@click.command(cls=Command, example="perak why train-digits")
@_job_argument
@click.pass_obj
def why(app: App, job: str) -> None:
    """Say why a job was placed where it is and not elsewhere, or why it waits.

    For a waiting job it names the price that would place it now.
    """
    from perak.cli import render

    with app.client() as client:
        answer = client.why(job)
    app.emit(answer, lambda: render.why(answer))


@click.command(cls=Command, example="perak ps -a --name train-digits")
@click.option("--all", "-a", "all_states", is_flag=True, help="Also those that have ended.")
@click.option("--name", help="Only jobs of this name.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=PS_LIMIT_DEFAULT, show_default=True)
@click.pass_obj
def ps(app: App, all_states: bool, name: str | None, limit: int) -> None:
    """List jobs, newest first."""
    from perak.cli import render
    from perak.domain.lifecycle import JOB_LIVE

    states = () if all_states else JOB_LIVE
    with app.client() as client:
        found = list(client.jobs(state=states, name=name, limit=limit + 1))
    shown, more = found[:limit], len(found) > limit
    app.emit(shown, lambda: render.jobs(shown, now=datetime.now(UTC)))
    if not shown and not all_states:
        app.say("No job is queued or running. `perak ps -a` shows those that have ended.")
    if more:
        app.say(f"There are more; `--limit {2 * limit}` shows them.")


@click.command(cls=Command, example="perak show train-digits")
@_job_argument
@click.pass_obj
def show(app: App, job: str) -> None:
    """Show a job, its runs and the steps of its life.

    JOB is an id, the last characters of one, or a name (the newest job of that name).
    """
    from perak.cli import render

    with app.client() as client:
        detail = client.job(job)
    app.emit(detail, lambda: render.job(detail, now=datetime.now(UTC)))


@click.command(cls=Command, example="perak logs -f train-digits")
@_job_argument
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@click.option("--attempt", type=click.IntRange(1), help="The log of this run; the latest by default.")
@click.pass_obj
def logs(app: App, job: str, follow: bool, attempt: int | None) -> int:
    """Print the log of a job as it is.

    With --json every piece is a line {"text": ...}. With -f the exit code is the job's own.
    """
    from perak.cli.follow import follow_log, print_log

    with app.client() as client:
        if follow:
            return follow_log(app, client, job, attempt=attempt)
        print_log(app, client.logs(job, attempt=attempt))
        return 0


@click.command(cls=Command, example="perak cancel train-digits")
@_job_argument
@click.pass_obj
def cancel(app: App, job: str) -> None:
    """Cancel a job.

    What ran until now is paid, the rest of what was held comes back.
    """
    with app.client() as client:
        cancelled = client.cancel(job)
    app.emit(cancelled, lambda: f"{cancelled.id} is {cancelled.state}.")


@click.command(cls=Command, example="perak download train-digits results/")
@_job_argument
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.pass_obj
def download(app: App, job: str, folder: Path | None) -> None:
    """Download the outputs of a job.

    DIR is a new or an empty folder; without it one is made here and named after the job.
    """
    from perak.cli.follow import upload_progress

    with app.client() as client:
        detail = client.job(job)
        dest = folder or Path(detail.name)
        with upload_progress("Downloading") as progress:
            client.download(detail.id, dest, progress=progress)
    if app.as_json:
        import json

        files = sorted(str(p.relative_to(dest)) for p in dest.rglob("*") if p.is_file())
        click.echo(json.dumps({"job": detail.id, "folder": str(dest), "files": files}, indent=2))
    app.say(f"The outputs of {detail.name} are in {dest}")


def _load(file: Path, env: tuple[str, ...]) -> JobFile:
    """The job file with the variables of the command line in it, checked again."""
    from dataclasses import replace

    from perak.wire.jobfile import load_job_file, parse_job

    job_file = load_job_file(file)
    if not env:
        return job_file
    added: dict[str, str] = {}
    for text in env:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} has no '='; write it like EPOCHS=5", param_hint="--env")
        added[name] = value
    tree = {**job_file.tree, "env": {**(job_file.tree.get("env") or {}), **added}}
    spec = parse_job(tree, workdir_digest=None, positions=job_file.positions, file=str(file))
    return replace(job_file, tree=tree, spec=spec)
