"""What a node must not forget: reports not yet acknowledged, and the runs that it has taken on.

One SQLite file in WAL mode. With ``synchronous = NORMAL`` a commit survives the death of the agent but, like
the runs themselves, not a power cut; `reconcile` heals the numbering after that.
"""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perak.domain.report import Body, Evidence, LogChunk, RunExited, RunRefused, RunStarted
from perak.wire.session import LeaseOrder, decode_report

FILE_NAME = "agent.db"
RELEASED_KEPT_MAX = 4096
"""Rows of runs that are gone, kept so that a late list can't start them again; some 300 bytes each."""
FORGET_EVERY = 256
"""Runs released between two looks for rows to delete."""
BUSY_SECONDS = 5.0
"""Only one agent opens the file; a backup tool may hold it for a moment."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reports (
    seq INTEGER PRIMARY KEY, jws TEXT NOT NULL, final_of TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY, epoch INTEGER NOT NULL, position INTEGER NOT NULL, "order" BLOB,
    start_asked INTEGER NOT NULL DEFAULT 0, started INTEGER NOT NULL DEFAULT 0, stop_cause TEXT,
    prefix_bytes INTEGER NOT NULL DEFAULT 0, log_bytes INTEGER NOT NULL DEFAULT 0, meter BLOB,
    exit INTEGER NOT NULL DEFAULT 0, released INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS runs_gone ON runs (position) WHERE released = 1;
"""

_JOURNALLED, _ACKNOWLEDGED = 1, 2

Sign = Callable[[int, int, Body], str]
"""(seq, at in Unix milliseconds, body) -> the signed text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as the journal knows it. `log_bytes`: how much of its log is reported, prefix included.

    `prefix_bytes`: the agent's own lines at the start of the log. `meter`: the state of its meter.
    """

    order: LeaseOrder
    start_asked: bool
    started: bool
    stop_cause: str | None
    prefix_bytes: int
    log_bytes: int
    meter: bytes | None
    exit_journalled: bool
    exit_acknowledged: bool


class Journal:
    """The agent's memory on disk. Not for use by several threads at once."""

    def __init__(self, path: Path, *, sign: Sign) -> None:
        self._sign = sign
        self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)
        self._forget_long_gone()
        self._released = 0
        self._last_seq = self._stored_last_seq()
        self._sent_seq = self._last_seq
        """The highest number that may have left this node; what an earlier life wrote may have."""

    def close(self) -> None:
        self._db.close()

    # Reports

    @property
    def last_seq(self) -> int:
        """The number of the latest report ever made, as far as is known."""
        return self._last_seq

    def append(self, body: Body, *, at: int) -> int:
        """Number, sign and keep a report; what it says about its run is kept with it. Returns its number."""
        seq = self._last_seq + 1
        jws = self._sign(seq, at, body)
        final_of = body.run if isinstance(body, RunExited | RunRefused) else None
        with self._transaction():
            self._db.execute(
                "INSERT INTO reports (seq, jws, final_of) VALUES (?, ?, ?)", (seq, jws, final_of)
            )
            self._note(body)
        self._last_seq = seq
        return seq

    def after(self, seq: int, *, limit: int) -> list[tuple[int, str]]:
        """(number, signed text) of the reports after `seq`, in order."""
        rows = self._db.execute(
            "SELECT seq, jws FROM reports WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)
        )
        return list(rows)

    def mark_sent(self, seq: int) -> None:
        """The report is about to leave this node."""
        self._sent_seq = max(self._sent_seq, seq)

    def unacknowledged(self) -> int:
        """How many reports wait; their numbers have no gaps, so none is counted."""
        (first,) = self._db.execute("SELECT min(seq) FROM reports").fetchone()
        return 0 if first is None else self._last_seq - int(first) + 1

    def acknowledge(self, seq: int) -> tuple[str, ...]:
        """Forget the reports up to `seq`; returns the runs whose last report was among them."""
        with self._transaction():
            rows = self._db.execute(
                "DELETE FROM reports WHERE seq <= ? RETURNING final_of", (seq,)
            ).fetchall()
            ended = tuple(run for (run,) in rows if run is not None)
            self._db.executemany(
                "UPDATE runs SET exit = ? WHERE run = ?", [(_ACKNOWLEDGED, run) for run in ended]
            )
            self._store_last_seq(max(self._last_seq, seq))
        self._last_seq = max(self._last_seq, seq)
        return ended

    def sign_anew(self) -> None:
        """Sign the evidence that waits with the certificate of now; each report keeps its number and time."""
        with self._transaction():
            for seq, jws in self._db.execute("SELECT seq, jws FROM reports").fetchall():
                report = decode_report(_payload(jws), jws=jws)
                if isinstance(report.body, Evidence):
                    signed = self._sign(seq, report.at, report.body)
                    self._db.execute("UPDATE reports SET jws = ? WHERE seq = ?", (signed, seq))

    def reconcile(self, ack: int) -> tuple[str, ...]:
        """Agree with what the exchange says at the start of a session; returns as `acknowledge` does.

        The exchange may know reports that this journal lost (a disk that was replaced), or lack some that
        it had acknowledged (a database that was restored). Either way its word counts: what was surely
        never sent, or would leave a gap, is numbered and signed anew from `ack` + 1.
        """
        waiting = self._db.execute("SELECT min(seq) FROM reports").fetchone()[0]
        if ack > self._sent_seq:
            ended = self.acknowledge(self._sent_seq)
            self._renumber(ack)
            return ended
        ended = self.acknowledge(ack)
        if (waiting is not None and waiting > ack + 1) or (waiting is None and self._last_seq > ack):
            self._renumber(ack)
        return ended

    def _renumber(self, ack: int) -> None:
        rows = self._db.execute("SELECT seq, jws FROM reports ORDER BY seq").fetchall()
        with self._transaction():
            # Negative numbers first: the new ones may collide with the old.
            self._db.execute("UPDATE reports SET seq = -seq")
            for new, (old, jws) in enumerate(rows, start=ack + 1):
                report = decode_report(_payload(jws), jws=jws)
                self._db.execute(
                    "UPDATE reports SET seq = ?, jws = ? WHERE seq = ?",
                    (new, self._sign(new, report.at, report.body), -old),
                )
            self._store_last_seq(ack + len(rows))
        self._last_seq = ack + len(rows)
        self._sent_seq = ack

    def _note(self, body: Body) -> None:
        match body:
            case LogChunk(run=run, offset=offset, data=data):
                self._db.execute("UPDATE runs SET log_bytes = ? WHERE run = ?", (offset + len(data), run))
            case RunStarted(run=run):
                self._db.execute("UPDATE runs SET started = 1 WHERE run = ?", (run,))
            case RunExited(run=run) | RunRefused(run=run):
                self._db.execute("UPDATE runs SET exit = ? WHERE run = ?", (_JOURNALLED, run))
            case _:
                pass

    # Runs

    def adopt(self, order: LeaseOrder) -> None:
        """Take a run on; a newer epoch of the same run replaces the older one that is gone."""
        self._db.execute(
            'INSERT OR REPLACE INTO runs (run, epoch, position, "order") '
            "VALUES (?, ?, (SELECT coalesce(max(position), 0) + 1 FROM runs), ?)",
            (order.run, order.epoch, msgspec.json.encode(order)),
        )

    def mark_start(self, run: str) -> None:
        """Written before the start, so that no later life starts it again."""
        self._db.execute("UPDATE runs SET start_asked = 1 WHERE run = ?", (run,))

    def mark_stop(self, run: str, cause: str) -> None:
        self._db.execute("UPDATE runs SET stop_cause = ? WHERE run = ?", (cause, run))

    def add_prefix(self, run: str, length: int) -> None:
        """`length` bytes of the agent's own went into the log, before the job's first."""
        self._db.execute("UPDATE runs SET prefix_bytes = prefix_bytes + ? WHERE run = ?", (length, run))

    def store_meter(self, run: str, meter: bytes) -> None:
        self._db.execute("UPDATE runs SET meter = ? WHERE run = ?", (meter, run))

    def release(self, run: str) -> None:
        """The run is gone; only its name and epoch are kept, for a while."""
        self._db.execute('UPDATE runs SET released = 1, "order" = NULL, meter = NULL WHERE run = ?', (run,))
        self._released += 1
        if self._released % FORGET_EVERY == 0:
            self._forget_long_gone()

    def _forget_long_gone(self) -> None:
        self._db.execute(
            "DELETE FROM runs WHERE released = 1 AND position <= (SELECT max(position) FROM runs) - ?",
            (RELEASED_KEPT_MAX,),
        )

    def records(self) -> list[RunRecord]:
        """The runs that are not gone, in the order in which they came."""
        rows = self._db.execute(
            'SELECT "order", start_asked, started, stop_cause, prefix_bytes, log_bytes, meter, exit '
            "FROM runs WHERE released = 0 ORDER BY position"
        )
        return [
            RunRecord(
                order=msgspec.json.decode(order, type=LeaseOrder),
                start_asked=bool(start_asked),
                started=bool(started),
                stop_cause=stop_cause,
                prefix_bytes=prefix_bytes,
                log_bytes=log_bytes,
                meter=meter,
                exit_journalled=stage >= _JOURNALLED,
                exit_acknowledged=stage >= _ACKNOWLEDGED,
            )
            for order, start_asked, started, stop_cause, prefix_bytes, log_bytes, meter, stage in rows
        ]

    def gone(self) -> list[tuple[str, int]]:
        """(run, epoch) of the runs that were released, oldest first."""
        return list(self._db.execute("SELECT run, epoch FROM runs WHERE released = 1 ORDER BY position"))

    # The file

    def _stored_last_seq(self) -> int:
        (seq,) = self._db.execute(
            "SELECT max(coalesce((SELECT value FROM meta WHERE name = 'last_seq'), 0), "
            "coalesce((SELECT max(seq) FROM reports), 0))"
        ).fetchone()
        assert isinstance(seq, int)
        return seq

    def _store_last_seq(self, seq: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('last_seq', ?)", (seq,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _payload(jws: str) -> bytes:
    """What a JWS of our own says; its signature needs no check."""
    middle = jws.split(".")[1]
    return base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4))
