"""Jobs as their project sees them, and the steps that followers read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from perak.adapters.db.ledger import UNRESOLVED
from perak.domain.errors import InvalidInput
from perak.domain.report import Metered, RunExited
from perak.domain.units import format_money
from perak.wire.api import EventView, Job, JobDetail, RunView
from perak.wire.session import decode_report
from perak.wire.signing import peek_payload

EVENTS_SHOWN_MAX = 500
"""The latest steps of a job's life that its page shows; a stream shows all."""
EVENTS_PER_READ = 100

# As `format_money` writes it: at least two decimals and no needless zeros.
MONEY = "to_char(coalesce({}, 0) / 1e6, 'FM9999999990.009999')"

# Price x devices x time in micro-units, rounded half up (docs/ledger.md).
WINDOW_COST = """floor((2 * price::numeric * devices_milli * extract(epoch from end_at - start_at)::bigint
        + 3600000) / 7200000)::bigint"""

RESERVATION = f"""
    select jsonb_build_object('state', kept.state, 'offer', offer_id, 'node', node_id, 'node_name', at.name,
        'devices', devices, 'price', {MONEY.format("price")}, 'cost', {MONEY.format(WINDOW_COST)},
        'start_at', start_at, 'end_at', end_at, 'note', note)
    from reservation kept join node at on at.id = kept.node_id where kept.job_id = job.id
"""

JOB = f"""
select job.id, job.name, job.state, job.reason, job.exit_code, job.attempts, job.created_at, job.started_at,
    job.ended_at, {MONEY.format("runs.cost")} as cost, coalesce(runs.has_outputs, false) as has_outputs,
    node.name as node_name, job.ended_at is null and exists (
        select from lease where lease.job_id = job.id and lease.state = 'suspected'
    ) as node_silent,
    {MONEY.format("held.amount")} as held,
    ({RESERVATION}) as reservation
from {{jobs}} job
left join lateral (
    select sum(run.cost)::bigint as cost, bool_or(run.outputs->>'digest' is not null) as has_outputs,
        max(run.node_id) filter (where run.attempt = job.attempts) as latest_node
    from run where run.job_id = job.id
) runs on true
left join node on node.id = runs.latest_node
left join lateral (
    select sum(hold.amount)::bigint as amount from transfer hold
    where job.ended_at is null and hold.job_id = job.id and hold.phase = 'pending' and {UNRESOLVED}
) held on true
"""

# The most frequent answer: PostgreSQL writes its JSON for a third of what rows and models would cost us.
LIST = f"""
select
    coalesce(json_agg(row_to_json(item) order by id desc) filter (where place <= {{limit}}), '[]')::text
        as items,
    case when count(*) > {{limit}} then min(id) filter (where place <= {{limit}}) end as next_cursor
from (
    select item, item.id, row_number() over (order by item.id desc) as place from ({JOB}) item
) numbered
"""

PAGE = """(
    select id, name, state, reason, exit_code, attempts, created_at, started_at, ended_at
    from job where {where} order by id desc limit {limit}
)"""

RUNS = """
select run.id, run.attempt, run.epoch, run.state, run.node_id as node, node.name as node_name,
    lease.offer_id as offer, run.lease_id as lease, lease.state as lease_state, lease.price, lease.devices,
    run.detail, run.tier, run.started_at, run.ended_at, run.exit_code, run.cause, run.cost,
    receipt.id as receipt, run.outputs, run.evidence_jws, lease.reclaim_notice_seconds, lease.reclaim_at
from run join lease on lease.id = run.lease_id join node on node.id = run.node_id
left join receipt on receipt.run_id = run.id
where run.job_id = $1 order by run.attempt
"""

EVENTS = """
select seq, at, kind, detail from (
    select seq, at, kind, detail from job_event where job_id = $1 order by seq desc limit $2
) newest order by seq
"""

STEPS = f"""
select job.ended_at is not null as ended,
    (
        select jsonb_agg(to_jsonb(step) order by seq) from (
            select seq, at, kind, detail from job_event where job_id = $1 and seq > $2
            order by seq limit {EVENTS_PER_READ}
        ) step
    ) as events,
    (
        select jsonb_agg(jsonb_build_object(
            'id', id, 'attempt', attempt, 'created_at', created_at, 'log_bytes', log_bytes,
            'ended', ended_at is not null
        ) order by attempt)
        from run where job_id = $1 and attempt >= $3
    ) as runs
from job where id = $1
"""


@dataclass(frozen=True, slots=True)
class JobsPage:
    """A page of jobs: `items` is the JSON of a list of `perak.wire.api.Job`."""

    items: str
    next_cursor: str | None


async def list_jobs(
    connection: Any,
    *,
    project: str,
    states: Sequence[str],
    name: str | None,
    before: str | None,
    limit: int,
) -> JobsPage:
    """Jobs of the project, newest first; `states` empty: any; `before`: the last id of the page before."""
    where, values = ["project_id = $1"], [project]
    for clause, value in (
        ("id < ${}", before),
        ("state = any (${})", list(states) or None),
        ("name = ${}", name),
    ):
        if value is not None:
            values.append(value)  # type: ignore[arg-type]  # texts, and one list of texts
            where.append(clause.format(len(values)))
    # Only our own constants and numbers are put together here; values go as parameters.
    page = PAGE.format(where=" and ".join(where), limit=int(limit) + 1)
    row = await connection.fetchrow(LIST.format(jobs=page, limit=int(limit)), *values)
    return JobsPage(row["items"], row["next_cursor"])


async def get_job(connection: Any, id: str, *, project: str) -> Job | None:
    row = await _one(connection, id, project)
    return Job(**row) if row else None


async def get_job_detail(connection: Any, id: str, *, project: str) -> JobDetail | None:
    """The job with its file, its runs and its latest steps."""
    row = await _one(connection, id, project)
    if row is None:
        return None
    runs = await connection.fetch(RUNS, id)
    events = await connection.fetch(EVENTS, id, EVENTS_SHOWN_MAX)
    file = await connection.fetchval("select file from job where id = $1", id)
    return JobDetail(
        **row,
        spec=file,
        runs=[_run(run) for run in runs],
        events=[EventView(**event) for event in events],
    )


async def project_has_job(connection: Any, id: str, *, project: str) -> bool:
    query = "select exists (select from job where id = $1 and project_id = $2)"
    return bool(await connection.fetchval(query, id, project))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLog:
    """A run as a follower needs it: how long its log is now, and whether the run is over."""

    id: str
    attempt: int
    created_at: datetime
    log_bytes: int
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What happened since a place in the stream, as of one moment; `events` are EVENTS_PER_READ at most."""

    ended: bool
    events: tuple[EventView, ...]
    runs: tuple[RunLog, ...]


async def read_steps(connection: Any, job: str, *, after_event: int, from_attempt: int) -> Steps:
    """The steps after `after_event`, and the runs from `from_attempt` on, in one snapshot."""
    row = await connection.fetchrow(STEPS, job, after_event, from_attempt)
    return Steps(
        ended=row["ended"],
        events=tuple(EventView.model_validate(event) for event in row["events"] or ()),
        runs=tuple(
            RunLog(
                id=run["id"],
                attempt=run["attempt"],
                created_at=datetime.fromisoformat(run["created_at"]),
                log_bytes=run["log_bytes"],
                ended=run["ended"],
            )
            for run in row["runs"] or ()
        ),
    )


async def read_log_rows(connection: Any, run: str, *, offset: int, limit_bytes: int) -> bytes:
    """Up to `limit_bytes` of a run's log from `offset`; empty where the database has nothing (yet) there."""
    rows = await connection.fetch(
        """select start, data from log_chunk where run_id = $1 and start < $3 and start >=
            (select max(start) from log_chunk where run_id = $1 and start <= $2)
        order by start""",
        run,
        offset,
        offset + limit_bytes,
    )
    if not rows:
        return b""
    skipped = offset - int(rows[0]["start"])
    return b"".join(row["data"] for row in rows)[skipped : skipped + limit_bytes]


async def run_of_attempt(connection: Any, job: str, *, attempt: int | None) -> tuple[str, int] | None:
    """(run, log length) of an attempt of the job, the latest if None; None where there is no such run."""
    row = await connection.fetchrow(
        """select id, log_bytes from run where job_id = $1 and ($2::int is null or attempt = $2)
        order by attempt desc limit 1""",
        job,
        attempt,
    )
    return (row["id"], row["log_bytes"]) if row else None


async def outputs_of(connection: Any, job: str) -> str | None:
    """The digest of the outputs of the job's last run that has some."""
    digest: str | None = await connection.fetchval(
        """select outputs->>'digest' from run where job_id = $1 and outputs->>'digest' is not null
        order by attempt desc limit 1""",
        job,
    )
    return digest


async def _one(connection: Any, id: str, project: str) -> Any:
    page = PAGE.format(where="id = $1 and project_id = $2", limit=1)
    return await connection.fetchrow(JOB.format(jobs=page), id, project)


def _run(row: Mapping[str, Any]) -> RunView:
    values = {name: value for name, value in row.items() if name not in ("outputs", "evidence_jws")}
    outputs = row["outputs"] or {}
    return RunView(
        **(values | _run_money(row) | _memory(row["evidence_jws"])),
        outputs_missing=outputs.get("missing", ()),
        outputs_skipped=outputs.get("skipped", ()),
    )


def _memory(evidence_jws: str | None) -> dict[str, int | None]:
    """What the last evidence says of memory. It was verified when it was stored."""
    if evidence_jws is None:
        return {}
    try:
        body = decode_report(peek_payload(evidence_jws), jws=evidence_jws).body
    except InvalidInput:
        return {}
    if isinstance(body, RunExited):
        return {"memory_peak_bytes": body.memory_peak_bytes}
    return {"memory_bytes": body.memory_bytes} if isinstance(body, Metered) else {}


def _run_money(row: Mapping[str, Any]) -> dict[str, Any]:
    cost = row["cost"]
    return {"price": format_money(row["price"]), "cost": None if cost is None else format_money(cost)}
