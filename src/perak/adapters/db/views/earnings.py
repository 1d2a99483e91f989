"""What a provider earned, from the ledger: payouts into its account, with the fee of the same run."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from perak.app.records import ExchangeFacts
from perak.domain.units import format_money
from perak.wire.api import DayEarnings, Earnings, NodeEarnings

NODES_MAX = 1_000
"""As many nodes as one page should hold; those that earned least are left out, never from the totals."""

PERIOD = """
with paid as (
    select payout.run_id, payout.amount as earned, coalesce(fee.amount, 0) as fee,
        (payout.at at time zone 'utc')::date as day, run.node_id
    from account
        join transfer payout on payout.credit = account.id and payout.kind = 'payout'
        join run on run.id = payout.run_id
        left join transfer fee
            on fee.job_id = payout.job_id and fee.run_id = payout.run_id and fee.kind = 'fee'
    where account.kind = 'earnings' and account.project_id = $1 and payout.at >= $2
)
select grouping(day) = 0 as of_day, grouping(paid.node_id) = 0 as of_node, day, paid.node_id as node,
    max(node.name) as name, count(*) as runs, sum(earned)::bigint as earned, sum(fee)::bigint as fee
from paid join node on node.id = paid.node_id
group by grouping sets ((), (day), (paid.node_id))
order by earned desc, day desc
"""

TOTALS = """
select coalesce(sum(amount) filter (where credit = account.id), 0)::bigint as earned,
    coalesce(sum(amount) filter (where debit = account.id), 0)::bigint as paid_out
from account left join transfer on account.id in (credit, debit) and phase in ('single', 'post')
where account.kind = 'earnings' and account.project_id = $1
"""


async def get_earnings(
    connection: Any, *, project: str, since: datetime, exchange: ExchangeFacts
) -> Earnings:
    """Two sums over the account's own entries; `since` is the start of a day (UTC)."""
    rows = await connection.fetch(PERIOD, project, since)
    totals = await connection.fetchrow(TOTALS, project)
    whole = next((row for row in rows if not row["of_day"] and not row["of_node"]), None)
    return Earnings(
        project=project,
        currency=exchange.currency,
        fee_percent=exchange.fee_basis_points / 100,
        since=since.date(),
        runs=whole["runs"] if whole else 0,
        earned=format_money(whole["earned"] if whole and whole["earned"] else 0),
        fee=format_money(whole["fee"] if whole and whole["fee"] else 0),
        earned_in_all=format_money(totals["earned"]),
        paid_out=format_money(totals["paid_out"]),
        balance=format_money(totals["earned"] - totals["paid_out"]),
        nodes=[_node(row) for row in rows if row["of_node"]][:NODES_MAX],
        days=sorted((_day(row) for row in rows if row["of_day"]), key=_latest, reverse=True),
    )


def _latest(day: DayEarnings) -> date:
    return day.day


def _node(row: Any) -> NodeEarnings:
    return NodeEarnings(
        node=row["node"],
        name=row["name"],
        runs=row["runs"],
        earned=format_money(row["earned"]),
        fee=format_money(row["fee"]),
    )


def _day(row: Any) -> DayEarnings:
    return DayEarnings(
        day=row["day"], runs=row["runs"], earned=format_money(row["earned"]), fee=format_money(row["fee"])
    )
