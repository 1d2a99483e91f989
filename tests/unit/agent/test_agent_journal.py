"""What survives the agent: numbers without gaps, reports until acknowledged, runs until released."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_samples import order

from perak.agent.journal import Journal
from perak.domain.report import Body, LogChunk, Report, RunExited, RunStarted
from perak.wire.session import decode_report, encode_report

ONE = order()


def fake_sign(seq: int, at: int, body: Body) -> str:
    """A JWS whose signature says nothing: the journal only keeps it."""
    payload = encode_report(seq=seq, node="node", at=at, body=body)
    return f"e30.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.sig"


def read(jws: str) -> Report:
    middle = jws.split(".")[1]
    return decode_report(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)), jws=jws)


def chunk(offset: int, data: bytes = b"abc") -> LogChunk:
    return LogChunk(run=ONE.run, lease=ONE.lease, epoch=1, offset=offset, data=data)


def exited() -> RunExited:
    return RunExited(
        run=ONE.run,
        lease=ONE.lease,
        epoch=1,
        started_at=1,
        ended_at=2,
        exit_code=0,
        cause="exited",
        detail=None,
        cpu_seconds=0.1,
        memory_peak_bytes=1,
        energy_joules=1,
        energy_method="m",
        energy_uncertainty_percent=1,
        log_bytes=3,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    made = Journal(path, sign=fake_sign)
    yield made
    made.close()


def numbers(journal: Journal) -> list[int]:
    rows = journal.after(0, limit=100)
    assert [read(jws).seq for _, jws in rows] == [seq for seq, _ in rows], "each is signed with its number"
    return [seq for seq, _ in rows]


def test_numbers_go_on_after_everything_was_acknowledged_and_the_agent_restarted(
    journal: Journal, path: Path
) -> None:
    for offset in (0, 3):
        journal.append(chunk(offset), at=1)
    journal.mark_sent(2)
    journal.acknowledge(2)
    journal.close()
    again = Journal(path, sign=fake_sign)
    assert again.append(chunk(6), at=1) == 3
    again.close()


def test_what_was_said_of_a_run_is_found_again(journal: Journal, path: Path) -> None:
    journal.adopt(ONE)
    journal.add_prefix(ONE.run, 2)
    journal.append(chunk(0, b"p\n"), at=1)
    journal.mark_start(ONE.run)
    journal.append(RunStarted(run=ONE.run, lease=ONE.lease, epoch=1, started_at=1, tier="bubblewrap"), at=1)
    journal.append(chunk(2), at=1)
    journal.mark_stop(ONE.run, "cancelled")
    journal.append(exited(), at=1)
    journal.close()
    again = Journal(path, sign=fake_sign)
    (record,) = again.records()
    assert (record.order, record.stop_cause) == (ONE, "cancelled")
    assert (record.prefix_bytes, record.log_bytes) == (2, 5)
    assert record.start_asked
    assert record.started
    assert (record.exit_journalled, record.exit_acknowledged) == (True, False)
    again.mark_sent(4)
    assert again.acknowledge(4) == (ONE.run,)
    assert again.acknowledge(4) == (), "told once"
    assert again.records()[0].exit_acknowledged
    again.close()


def test_a_released_run_leaves_its_name(journal: Journal) -> None:
    journal.adopt(ONE)
    journal.release(ONE.run)
    assert journal.records() == []
    assert journal.gone() == [(ONE.run, 1)]


def test_a_session_goes_on_where_the_exchange_says(journal: Journal) -> None:
    for offset in (0, 3, 6):
        journal.append(chunk(offset), at=1)
    journal.mark_sent(3)
    journal.reconcile(2)
    assert numbers(journal) == [3]


def test_a_lost_journal_takes_up_the_numbers_of_the_exchange_without_losing_what_is_new(
    journal: Journal,
) -> None:
    journal.adopt(ONE)
    journal.append(chunk(0), at=1)
    journal.append(exited(), at=1)
    assert journal.reconcile(100) == (), "the exchange can't have seen these: nothing was sent"
    assert numbers(journal) == [101, 102]
    assert journal.append(chunk(3), at=1) == 103
    journal.mark_sent(103)
    assert journal.acknowledge(103) == (ONE.run,)


def test_a_restored_exchange_that_forgot_reports_gets_the_rest_without_a_gap(journal: Journal) -> None:
    for offset in (0, 3, 6):
        journal.append(chunk(offset), at=1)
    journal.mark_sent(3)
    journal.acknowledge(2)
    journal.reconcile(1)
    assert numbers(journal) == [2]
    assert journal.append(chunk(9), at=1) == 3


def test_a_restored_exchange_that_forgot_everything(journal: Journal) -> None:
    journal.append(chunk(0), at=1)
    journal.mark_sent(1)
    journal.acknowledge(1)
    journal.reconcile(0)
    assert journal.append(chunk(3), at=1) == 1


def test_the_file_is_for_its_owner_only(journal: Journal, path: Path) -> None:
    journal.append(chunk(0), at=1)
    assert {p.stat().st_mode & 0o777 for p in path.parent.glob("agent.db*")} == {0o600}


def test_only_so_many_gone_runs_are_remembered(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perak.agent.journal.RELEASED_KEPT_MAX", 3)
    for number in range(1, 9):
        journal.adopt(order(number))
        journal.release(order(number).run)
    journal.close()
    again = Journal(path, sign=fake_sign)
    assert [run for run, _ in again.gone()] == [order(number).run for number in (6, 7, 8)]
    again.close()
