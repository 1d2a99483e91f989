"""Following a job: its log as it is, notices beside it, Ctrl-C asked about, and the receipt at the end."""

from __future__ import annotations

import codecs
import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from perak.cli.app import App, console, is_interactive, print_rich, to_json
from perak.cli.exits import INTERRUPTED, job_exit_code, printable

if TYPE_CHECKING:
    from perak.client import Client
    from perak.client.flows import Progress
    from perak.wire import api

PROGRESS_FROM_BYTES = 2**20
"""Smaller transfers are over before a bar could be read."""


def follow_to_end(app: App, client: Client, job: api.Job) -> int:
    """Show everything about `job` until it has ended; returns the exit code of the command."""
    from perak.cli import render

    _notice(f"{job.name} is {job.id}")
    ended = _follow(app, client, job.id, notices=True, attempt=None)
    if ended is None:
        return INTERRUPTED
    detail = client.job(job.id)
    receipt = _last_receipt(client, detail)
    if app.as_json:
        click.echo(to_json(detail))
    else:
        print_rich(render.ending(detail, receipt), err=True)
    return job_exit_code(ended.state, ended.exit_code)


def follow_log(app: App, client: Client, ref: str, *, attempt: int | None) -> int:
    """Print the log to its end; returns the exit code of the command."""
    job_id = client.job(ref).id
    ended = _follow(app, client, job_id, notices=False, attempt=attempt)
    return INTERRUPTED if ended is None else job_exit_code(ended.state, ended.exit_code)


def print_log(app: App, pieces: Iterable[bytes]) -> None:
    """Write pieces of a log to stdout as they are, or as JSON lines of text."""
    out = _LogOutput(as_json_lines=app.as_json)
    for piece in pieces:
        out.write(piece)


@contextmanager
def upload_progress(title: str) -> Iterator[Progress | None]:
    """A progress bar on stderr once a transfer proves large; None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    bar = Progress(
        title, BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console(err=True), transient=True
    )
    task = bar.add_task(title, total=None)

    def update(done: int, total: int | None) -> None:
        if (total or done) >= PROGRESS_FROM_BYTES:
            bar.start()
            bar.update(task, completed=done, total=total)

    try:
        yield update
    finally:
        bar.stop()


def _follow(app: App, client: Client, job_id: str, *, notices: bool, attempt: int | None) -> api.Job | None:
    """The job as it ended, or None if it was left running. Takes the stream up again after a question."""
    from perak.client import End, Log, State, Warned

    out = _LogOutput(as_json_lines=app.as_json and not notices, err=app.as_json and notices)
    last_event_id: str | None = None
    while True:
        try:
            for event in client.events(job_id, last_event_id=last_event_id):
                match event:
                    case Log():
                        if attempt in (None, event.attempt):
                            out.write(event.data)
                    case State() if notices:
                        _notice(event.event.detail)
                    case Warned():
                        _notice(event.event.detail, warning=True)
                    case End():
                        out.end_line()
                        return event.job
                last_event_id = event.id
        except KeyboardInterrupt:
            out.end_line()
            if not _ask_about_interrupt(client, job_id):
                return None


def _ask_about_interrupt(client: Client, job_id: str) -> bool:
    """Whether to go on following. A second Ctrl-C, or nobody to ask, leaves the job running."""
    from perak.client.errors import Conflict

    choice = "d"
    if is_interactive():
        try:
            question = "Leave the job running (d), cancel it (c), or go on following (f)?"
            choice = str(click.prompt(question, type=click.Choice(["d", "c", "f"]), default="d", err=True))
        except (KeyboardInterrupt, click.Abort):
            click.echo(err=True)
    if choice == "c":
        with contextlib.suppress(Conflict):  # It ended while we asked.
            client.cancel(job_id)
        _notice("asked for the job to be cancelled; waiting for its end")
    if choice == "d":
        _notice(f"the job runs on. Follow it: perak logs -f {job_id}   End it: perak cancel {job_id}")
    return choice != "d"


def _last_receipt(client: Client, detail: api.JobDetail) -> api.Receipt | None:
    """The receipt of the job's last run; None if it never ran."""
    named = [run.receipt for run in detail.runs if run.receipt is not None]
    return client.receipt(named[-1]) if named else None


def _notice(text: str, *, warning: bool = False) -> None:
    mark = click.style("!", fg="yellow", bold=True) if warning else click.style("·", dim=True)
    click.echo(f"{mark} {printable(text)}", err=True)


class _LogOutput:
    """Where log bytes go: raw, so that what is not UTF-8 passes too, or as JSON lines."""

    def __init__(self, *, as_json_lines: bool, err: bool = False) -> None:
        self._as_json_lines = as_json_lines
        self._stream = (sys.stderr if err else sys.stdout).buffer
        self._decoder = codecs.lookup("utf-8").incrementaldecoder("replace")
        self._line_open = False

    def write(self, data: bytes) -> None:
        if not data:
            return
        if self._as_json_lines:
            if text := self._decoder.decode(data):
                self._stream.write(json.dumps({"text": text}).encode() + b"\n")
        else:
            self._stream.write(data)
            self._line_open = not data.endswith(b"\n")
        self._stream.flush()

    def end_line(self) -> None:
        """Let notices start on a line of their own, on a terminal."""
        if self._line_open and sys.stdout.isatty():
            self._stream.write(b"\n")
            self._stream.flush()
            self._line_open = False
