"""What the parts log: words for people on stderr, JSON in the file, where there is one."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perak.agent.own_log import set_up_logging
from perak.logfile import LogFile
from perak.server.logging import configure_logging, get_logger

SetUp = Callable[[Path | None], None]


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """The root logger, as it was before."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    yield root
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)


def of_agent(file: Path | None) -> None:
    set_up_logging("warning", file)


def of_exchange(file: Path | None) -> None:
    configure_logging(level="warning", json=True, file=file)


PARTS = pytest.mark.parametrize(("part", "set_up"), [("agent", of_agent), ("exchange", of_exchange)])


def speak() -> None:
    log = logging.getLogger("perak.test")
    log.info("nobody has to know")
    log.warning("the disk is full")
    try:
        raise OSError("no space left")
    except OSError:
        log.exception("a step failed")


@PARTS
def test_with_a_file_people_read_words_and_the_file_has_all(
    part: str, set_up: SetUp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "logs" / "part.log"
    set_up(file)
    speak()
    assert capsys.readouterr().err.splitlines() == [
        f"perak {part}: the disk is full",
        f"perak {part}: a step failed (OSError: no space left)",
    ]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["nobody has to know", "the disk is full", "a step failed"]
    assert "Traceback" in lines[-1]["exception"]
    assert file.stat().st_mode & 0o077 == 0, "for its owner only"


@PARTS
def test_without_a_file_the_lines_are_json_on_stderr(
    part: str, set_up: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(None)
    speak()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["the disk is full", "a step failed"], part


def test_what_an_event_of_the_exchange_is_about_stands_behind_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_exchange(tmp_path / "exchange.log")
    get_logger("perak.test").warning("a grid feed failed", region="DE", problem="it limits the rate (429)")
    said = "perak exchange: a grid feed failed (region DE, problem it limits the rate (429))\n"
    assert capsys.readouterr().err == said


def test_a_log_takes_no_more_of_the_disk_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perak.logfile.BYTES_MAX", 1_000)
    log = LogFile(tmp_path / "part.log")
    for number in range(200):
        log.emit(logging.makeLogRecord({"msg": f"line {number} {'x' * 50}"}))
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [each.name for each in files] == ["part.log", "part.log.1", "part.log.2"]
    assert all(each.stat().st_size <= 1_000 and each.stat().st_mode & 0o077 == 0 for each in files)


def test_a_full_disk_is_no_reason_to_print_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = LogFile(tmp_path / "part.log")
    log.stream.close()
    with contextlib.suppress(OSError), open("/dev/full", "w") as log.stream:
        log.emit(logging.makeLogRecord({"msg": "lost"}))
    assert capsys.readouterr().err == ""
