"""The command line against an exchange in memory: what people see, what programs get, and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from perak.cli import exits, follow
from perak.cli.app import App
from perak.cli.main import COMMANDS, cli
from perak.wire.api import TRUST
from unit.client.canned_exchange import (
    AT,
    JOB,
    OFFER,
    OTHER_JOB,
    QUOTE,
    RECEIPT,
    URL,
    FakeExchange,
    a_detail,
    a_job,
    a_run,
    end_event,
    log_event,
    problem,
    step_event,
)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PERAK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PERAK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PERAK_URL", URL)
    monkeypatch.setenv("PERAK_API_KEY", "pk_secret")
    monkeypatch.setattr("perak.client.sync.time", SimpleNamespace(sleep=lambda _: None))


@pytest.fixture
def fake() -> FakeExchange:
    return FakeExchange()


class Perak:
    def __init__(self, fake: FakeExchange) -> None:
        self.fake = fake

    def __call__(self, *args: str | Path, **kwargs: Any) -> Result:
        app = App(transport=self.fake.sync_transport())
        return CliRunner().invoke(cli, [str(arg) for arg in args], obj=app, catch_exceptions=False, **kwargs)


@pytest.fixture
def perak(fake: FakeExchange) -> Perak:
    return Perak(fake)


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    file = tmp_path / "job.yaml"
    file.write_text("name: hello\nrun: echo hello\nenv: {A: 1}\n")
    return file


# Running a job


def test_run_keeps_the_log_apart_from_all_else(perak: Perak, fake: FakeExchange, job_file: Path) -> None:
    fake.streams = [
        step_event("placed on attic-1 at 0.01/h")
        + log_event(b"\xffbytes\n")
        + step_event("the node is silent", kind="warning")
        + end_event(fake.job)
    ]
    result = perak("run", job_file)

    assert result.exit_code == 0
    assert result.stdout_bytes == b"\xffbytes\n"
    for expected in (
        "placed on attic-1 at 0.01/h",
        "the node is silent",
        "0.0123 USD",
        "84 J ± 50 %",
        "mg CO2e",
    ):
        assert expected in result.stderr
    assert "bubblewrap" in result.stderr


@pytest.mark.parametrize(
    ("state", "exit_code", "expected"),
    [
        ("succeeded", 0, 0),
        ("failed", 7, 7),
        ("failed", 137, 137),
        ("failed", None, exits.JOB_FAILED),
        ("failed", 0, exits.JOB_FAILED),
        ("cancelled", None, exits.INTERRUPTED),
    ],
)
def test_run_passes_on_how_the_job_ended(
    perak: Perak, fake: FakeExchange, job_file: Path, state: str, exit_code: int | None, expected: int
) -> None:
    fake.job = a_job(state=state, exit_code=exit_code, reason="because")
    fake.detail = a_detail(fake.job, runs=[a_run(receipt=None)])
    fake.streams = [end_event(fake.job)]

    result = perak("run", job_file)

    assert result.exit_code == expected
    assert "because" in result.stderr


def test_run_with_json_prints_the_job_alone(perak: Perak, fake: FakeExchange, job_file: Path) -> None:
    result = perak("run", job_file, "--json")

    assert json.loads(result.stdout)["id"] == JOB
    assert "hello\n" in result.stderr


def test_detached_the_id_is_all_there_is(perak: Perak, fake: FakeExchange, job_file: Path) -> None:
    result = perak("run", job_file, "--detach")

    assert result.stdout == f"{JOB}\n"
    assert fake.asked == ["POST /v1/jobs"]


def test_variables_of_the_command_line_win(perak: Perak, fake: FakeExchange, job_file: Path) -> None:
    perak("run", job_file, "-d", "--env", "A=2", "--env", "B=x=y")

    assert fake.submitted[0]["job"]["env"] == {"A": "2", "B": "x=y"}
    assert perak("run", job_file, "--env", "A").exit_code == exits.USAGE


def test_a_wrong_job_file_is_told_before_anything_is_asked(
    perak: Perak, fake: FakeExchange, tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: a\nrun: b\nresource: {cpu: 1}\n")

    told = perak("run", file)
    as_json = perak("run", file, "--json")

    assert told.exit_code == as_json.exit_code == exits.BAD_DATA
    assert f"{file}:3: resource: there is no such key; did you mean resources?" in told.stderr
    error = json.loads(as_json.stderr)["error"]
    assert error["code"] == "invalid_job"
    assert error["errors"][0]["line"] == 3
    assert fake.requests == []


class Interrupted:
    """A stream that ends in Ctrl-C, as the terminal would send it."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __call__(self, _: httpx.Request) -> httpx.Response:
        class Body(httpx.SyncByteStream):
            def __iter__(body) -> Any:  # noqa: N805
                yield self.data
                raise KeyboardInterrupt

        return httpx.Response(200, stream=Body(), headers={"Content-Type": "text/event-stream"})


def interrupt(fake: FakeExchange, times: int = 1) -> None:
    first = log_event(b"begun\n", event_id="1.6.0")
    fake.script[f"GET /v1/jobs/{JOB}/events"] = [Interrupted(first)] * times


def test_ctrl_c_without_a_terminal_leaves_the_job_running(
    perak: Perak, fake: FakeExchange, job_file: Path
) -> None:
    interrupt(fake)
    result = perak("run", job_file)

    assert result.exit_code == exits.INTERRUPTED
    assert f"perak logs -f {JOB}" in result.stderr
    assert f"POST /v1/jobs/{JOB}/cancel" not in fake.asked


def test_ctrl_c_may_cancel_the_job(
    perak: Perak, fake: FakeExchange, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "is_interactive", lambda: True)
    interrupt(fake)
    fake.job = a_job(state="cancelled", exit_code=None)
    fake.streams = [end_event(fake.job)]

    result = perak("run", job_file, input="c\n")

    assert result.exit_code == exits.INTERRUPTED
    assert f"POST /v1/jobs/{JOB}/cancel" in fake.asked
    assert fake.requests[-3].headers["Last-Event-ID"] == "1.6.0"


def test_ctrl_c_may_be_taken_back(
    perak: Perak, fake: FakeExchange, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "is_interactive", lambda: True)
    interrupt(fake, times=2)
    fake.streams = [end_event(fake.job)]

    result = perak("run", job_file, input="f\nf\n")

    assert result.exit_code == 0
    assert f"POST /v1/jobs/{JOB}/cancel" not in fake.asked


def test_a_second_ctrl_c_detaches(
    perak: Perak, fake: FakeExchange, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prompt(*_: Any, **__: Any) -> str:
        raise click.Abort

    monkeypatch.setattr(follow, "is_interactive", lambda: True)
    monkeypatch.setattr(click, "prompt", prompt)
    interrupt(fake)

    result = perak("run", job_file)

    assert result.exit_code == exits.INTERRUPTED
    assert "the job runs on" in result.stderr


# Looking at things


def test_quote_shows_what_fits_what_does_not_and_whom_to_trust(perak: Perak, job_file: Path) -> None:
    result = perak("quote", job_file)

    for expected in ("attic-1", "0.40", "250", "87.5", "cellar", "P100", "gpu", "3.06 on demand", TRUST):
        assert expected in result.stdout
    assert "Not enforced at attic-1: disk. `perak offer show attic-1` says why." in result.stdout
    assert json.loads(perak("quote", job_file, "--json").stdout)["offers"][1]["fits"] is False


def test_a_quote_that_the_wallet_does_not_cover_says_so(
    perak: Perak, fake: FakeExchange, job_file: Path
) -> None:
    quote = {**QUOTE, "affordable": False, "offers": []}
    fake.script["POST /v1/quotes"] = [httpx.Response(200, json=quote)]

    result = perak("quote", job_file)

    assert "does not cover" in result.stdout
    assert "There is no offer" in result.stdout


def test_ps_asks_for_live_jobs_and_shows_short_ids(perak: Perak, fake: FakeExchange) -> None:
    fake.others = [a_job(id=OTHER_JOB, name="other", state="running")]
    live, everything = perak("ps"), perak("ps", "-a", "--json")

    assert fake.requests[0].url.params["state"] == "queued,leased,running,cancelling"
    assert "zx4aaa" in live.stdout
    assert [job["id"] for job in json.loads(everything.stdout)] == [JOB, OTHER_JOB]


def test_secrets_are_printed_in_one_piece(perak: Perak, fake: FakeExchange) -> None:
    token = "perak-invite-v1." + "a" * 900
    said = {"id": "invite-1", "token": token, "expires_at": AT.isoformat(), "uses": 1}
    fake.script["POST /v1/invites"] = [httpx.Response(201, json=said)]

    assert perak("node", "invite").stdout == f"{token}\n"


def test_tables_for_programs_end_their_lines_with_words(perak: Perak) -> None:
    assert all(line == line.rstrip() for line in perak("ps").stdout.splitlines())


def test_ps_says_when_there_is_more(perak: Perak, fake: FakeExchange) -> None:
    fake.others = [a_job(id=OTHER_JOB, name="other")]

    result = perak("ps", "-a", "--limit", "1")

    assert "other" not in result.stdout
    assert "--limit 2" in result.stdout


def test_show_shows_runs_and_steps(perak: Perak) -> None:
    result = perak("show", "hello")

    for expected in (JOB, "attic-1", "exited", "queued", "0.0123"):
        assert expected in result.stdout


def test_text_of_others_can_not_command_the_terminal(perak: Perak, fake: FakeExchange) -> None:
    evil = "\x1b]0;owned\x07[bold]node[/bold]\x1b[2J"
    step = {"seq": 1, "at": AT, "kind": "x", "detail": evil}
    fake.detail = a_detail(fake.job, runs=[a_run(node_name=evil)], events=[step])
    fake.streams = [step_event(evil) + end_event(fake.job)]

    shown = perak("show", JOB)

    assert "\x1b" not in shown.stdout
    assert "[bold]node[/bold]" in shown.stdout


def test_logs_are_raw_or_json_lines(perak: Perak, fake: FakeExchange) -> None:
    fake.log = b"one\n\xff\n"

    assert perak("logs", "hello").stdout_bytes == b"one\n\xff\n"
    assert [json.loads(line)["text"] for line in perak("logs", JOB, "--json").stdout.splitlines()]


def test_followed_logs_pass_on_the_exit_code(perak: Perak, fake: FakeExchange) -> None:
    fake.job = a_job(state="failed", exit_code=3)
    fake.streams = [step_event("unheard") + log_event(b"x\n") + end_event(fake.job)]

    result = perak("logs", "-f", JOB)

    assert (result.exit_code, result.stdout_bytes) == (3, b"x\n")
    assert "unheard" not in result.stderr


def test_receipts_show_every_figure(perak: Perak, tmp_path: Path) -> None:
    result = perak("receipt", "show", "hello", "--save", tmp_path / "receipt.json")

    for expected in (
        "0.0123 USD", "0.0003 USD", "0.012 USD", "0.0877 USD", "350 g/kWh x PUE 1.5", "Ember (2025)",
        "no project quota here", "84 J", "model", "per device-hour", "yearly average",
    ):  # fmt: skip
        assert expected in result.stdout, expected
    assert json.loads((tmp_path / "receipt.json").read_text())["jws"] == "a.b.c"
    assert json.loads(perak("receipt", "show", RECEIPT, "--json").stdout)["receipt"]["id"] == RECEIPT


def test_what_is_no_receipt_is_refused(perak: Perak, tmp_path: Path) -> None:
    (tmp_path / "receipt.json").write_text('{"receipt": {}, "jws": "a.b.c"}')

    assert perak("receipt", "verify", tmp_path / "receipt.json").exit_code == exits.BAD_DATA
    assert perak("receipt", "verify", tmp_path / "none.json").exit_code == exits.NOT_FOUND


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("node", "ls"), "attic-1"),
        (("node", "show", "attic-1"), "0.1.0"),
        (("offer", "show", "attic-1"), "disk: no loop devices"),
        (("offer", "show", "attic-1"), "sha256:5f5f"),
        (("node", "invite"), "perak1.abc"),
        (("offer", "ls"), "2 of 2"),
        (("wallet", "show"), "5.00 USD"),
        (("wallet", "fund", "5", "--project", "lab"), "5.00 recorded"),
        (("key", "ls"), "laptop"),
        (("key", "create", "laptop"), "pk_secret"),
        (("project", "ls"), "lab"),
        (("cancel", "hello"), "cancelling"),
    ],
    ids=" ".join,
)
def test_nouns_answer_people_and_programs(perak: Perak, args: tuple[str, ...], expected: str) -> None:
    people, programs = perak(*args), perak(*args, "--json")

    assert people.exit_code == 0, people.stderr
    assert expected in people.stdout
    assert json.loads(programs.stdout)


def test_an_offer_is_changed_by_its_nodes_name(perak: Perak, fake: FakeExchange) -> None:
    result = perak("offer", "set", "attic-1", "--price-cpu", "0.02/h", "--pause")

    assert result.exit_code == 0
    assert fake.requests[-1].url.path.endswith(OFFER)
    assert json.loads(fake.requests[-1].content) == {"state": "paused", "price_cpu": "0.02"}
    assert perak("offer", "set", "attic-1").exit_code == exits.USAGE
    assert perak("offer", "set", "attic-1", "--price-cpu", "much").exit_code == exits.USAGE


# Errors


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problem(401, "not_authenticated", "no key"), exits.NOT_ALLOWED),
        (problem(402, "insufficient_funds", "empty"), exits.NO_FUNDS),
        (problem(403, "not_allowed", "no role"), exits.NOT_ALLOWED),
        (problem(404, "not_found", "no such"), exits.NOT_FOUND),
        (problem(409, "conflict", "too late"), exits.FAILED),
        (problem(500, "internal", "bug"), exits.TRY_LATER),
        (httpx.Response(200, text="<html>"), exits.PROTOCOL),
    ],
    ids=str,
)
def test_errors_have_codes_of_their_own(
    perak: Perak, fake: FakeExchange, answer: httpx.Response, code: int
) -> None:
    fake.script["GET /v1/wallet"] = [answer]

    result = perak("--json", "wallet", "show")

    assert result.exit_code == code
    assert result.stdout == ""
    assert json.loads(result.stderr)["error"]["exit_code"] == code


def test_an_unreachable_exchange_says_which_and_what_to_do(perak: Perak, fake: FakeExchange) -> None:
    fake.script["GET /v1/wallet"] = [httpx.ConnectError("Connection refused")] * 9

    result = perak("wallet", "show")

    assert result.exit_code == exits.UNREACHABLE
    assert URL in result.stderr
    assert "perak up" in result.stderr


def test_a_bug_is_not_hidden(perak: Perak, fake: FakeExchange) -> None:
    fake.script["GET /v1/wallet"] = [ZeroDivisionError("ours")]

    with pytest.raises(ZeroDivisionError):
        perak("wallet", "show")


def test_a_mistyped_command_is_guessed(perak: Perak) -> None:
    result = perak("walet", "show")

    assert result.exit_code == exits.USAGE
    assert "perak wallet" in result.stderr


# Help


OF_MACHINES = ("up", "exchange", "agent", "audit", "backup", "restore")
"""Not the client's: they lie with what they run."""


def commands_of(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name in group.list_commands(click.Context(group)):
        if name in OF_MACHINES:
            continue
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            found += commands_of(command, (*path, name))
        else:
            found.append((" ".join((*path, name)), command))
    return found


@pytest.mark.parametrize(("name", "command"), commands_of(cli), ids=lambda value: str(value)[:20])
def test_every_command_explains_itself(perak: Perak, name: str, command: click.Command) -> None:
    shown = perak(*name.split(), "--help").stdout

    assert f"perak {name}" in shown.split("Example:")[1]
    assert "--json" in shown


def test_the_table_says_what_the_commands_say() -> None:
    for section in COMMANDS.values():
        for name, (_, text) in section.items():
            if name in OF_MACHINES:
                continue
            command = cli.get_command(click.Context(cli), name)
            assert command is not None
            assert command.get_short_help_str(200) in (text, text.removesuffix("."))


def test_help_names_every_exit_code(perak: Perak) -> None:
    shown = perak("--help").stdout

    for code, text in exits.EXIT_CODES.items():
        assert f"{code:>3}  {text}" in shown


@pytest.mark.parametrize("noun", ["offer", "node", "receipt"])
def test_what_a_verb_does_is_said_in_a_whole_sentence(perak: Perak, noun: str) -> None:
    commands = perak(noun, "--help").stdout.partition("Commands:")[2]

    assert commands
    assert "..." not in commands


def test_help_loads_nothing_heavy() -> None:
    heavy = ("httpx", "pydantic", "rich", "yaml", "cryptography", "fastapi", "asyncio")
    script = (
        "import sys\n"
        "from perak.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_scripts_are_printed(perak: Perak, shell: str) -> None:
    assert "_PERAK_COMPLETE" in perak("completion", shell).stdout


def test_schema_is_the_shipped_one(perak: Perak) -> None:
    assert json.loads(perak("schema").stdout)["title"] == "Perak job file"
