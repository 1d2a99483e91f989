"""Exit codes, and how an error becomes one. The numbers from 64 are those of sysexits.h where one fits."""

from __future__ import annotations

import os
import sys

import click

OK = 0
FAILED = 1
USAGE = 2
BAD_DATA = 65
NOT_FOUND = 66
UNREACHABLE = 69
JOB_FAILED = 70
CANT_WRITE = 73
TRY_LATER = 75
PROTOCOL = 76
NOT_ALLOWED = 77
NOT_CONFIGURED = 78
NO_FUNDS = 79
INTERRUPTED = 130

EXIT_CODES: dict[int, str] = {
    OK: "done; for `run`: the job ended with 0",
    FAILED: "refused, or something else went wrong",
    USAGE: "the command was not understood",
    BAD_DATA: "a job file or receipt is not valid",
    NOT_FOUND: "there is no such job, file or thing",
    UNREACHABLE: "the exchange can't be reached",
    JOB_FAILED: "the job failed without an exit code of its own",
    CANT_WRITE: "a file or folder can't be written",
    TRY_LATER: "the exchange is busy or failed; try again",
    PROTOCOL: "what answered is not an exchange, or its answer was damaged",
    NOT_ALLOWED: "the key is missing, unknown or lacks the role",
    NOT_CONFIGURED: "no exchange is known, or a profile is broken",
    NO_FUNDS: "the wallet does not cover it",
    INTERRUPTED: "interrupted, or the job was cancelled",
}

EXIT_CODES_HELP = "\b\nExit codes (`run` and `logs -f` pass on the job's own):\n" + "\n".join(
    f"  {code:>3}  {text}" for code, text in EXIT_CODES.items()
)


def report(error: BaseException, *, as_json: bool) -> int:
    """Print an error on stderr, for people or as one JSON object, and return the exit code."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        # The reader (head, less) has gone; nothing more can be said, not even while Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    code, name, message, places = describe(error)
    if as_json:
        import json

        told = {"code": name, "message": message, "exit_code": code, "errors": places}
        click.echo(json.dumps({"error": told}), err=True)
    elif isinstance(error, click.UsageError):
        error.show()
    elif isinstance(error, click.Abort | KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
    else:
        click.echo(f"{click.style('Error:', fg='red', bold=True)} {printable(message)}", err=True)
    return code


def describe(error: BaseException) -> tuple[int, str, str, list[dict[str, object]]]:
    """(exit code, stable name, message, places in a file) of an error; one that is a bug is raised again."""
    from perak.client.errors import PerakError
    from perak.domain.errors import DomainError
    from perak.wire.archive import ArchiveError

    if isinstance(error, PerakError):
        return _code_of(error), error.code, error.detail, []
    if isinstance(error, DomainError):
        places = [dict(place) for place in getattr(error, "errors", [])]
        return BAD_DATA, error.code, error.detail, places
    if isinstance(error, ArchiveError):
        return CANT_WRITE, "archive", _sentence(str(error)), []
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return INTERRUPTED, "interrupted", "interrupted", []
    if isinstance(error, click.ClickException):
        return error.exit_code, "usage" if error.exit_code == USAGE else "error", error.format_message(), []
    if isinstance(error, FileNotFoundError):
        return NOT_FOUND, "not_found", _file_error(error), []
    # Arrow's errors name the file in their text alone.
    if isinstance(error, OSError) and (error.filename is not None or isinstance(error, PermissionError)):
        return CANT_WRITE, "file", _file_error(error), []
    raise error


def _file_error(error: OSError) -> str:
    return str(error) if error.filename is None else f"{error.filename}: {error.strerror}"


def job_exit_code(state: str, exit_code: int | None) -> int:
    """The job's own exit code, or what stands for it."""
    if state == "succeeded":
        return exit_code or OK
    if state == "cancelled":
        return INTERRUPTED
    return exit_code or JOB_FAILED


def printable(text: str) -> str:
    """Text of others without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def _code_of(error: Exception) -> int:
    from perak.client import errors

    codes: list[tuple[type[Exception], int]] = [
        (errors.ConfigError, NOT_CONFIGURED),
        (errors.InvalidArgument, USAGE),
        (errors.ExchangeUnreachable, UNREACHABLE),
        (errors.NotAnExchange, PROTOCOL),
        (errors.DownloadDamaged, PROTOCOL),
        (errors.NotAuthenticated, NOT_ALLOWED),
        (errors.NotAllowed, NOT_ALLOWED),
        (errors.InsufficientFunds, NO_FUNDS),
        (errors.NotFound, NOT_FOUND),
        (errors.TooManyRequests, TRY_LATER),
        (errors.ExchangeFailed, TRY_LATER),
    ]
    return next((code for kind, code in codes if isinstance(error, kind)), FAILED)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
