"""Figures for Prometheus."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from perak.adapters.db.upkeep import Counts

LATENCY_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """The figures of one replica. `settle_seconds`: from a run's last report to its receipt, committed."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        # A second series for each, which says what Prometheus knows anyway.
        self.registry = registry = CollectorRegistry()
        self._counts = Gauge(
            "perak_state", "Live jobs, nodes and live leases by state", ["kind", "state"], registry=registry
        )
        self.requests = Counter(
            "perak_http_requests", "Requests by route", ["method", "route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "perak_http_request_seconds", "Time to the first byte", ["route"], registry=registry,
            buckets=LATENCY_BUCKETS,
        )  # fmt: skip
        self.sessions = Gauge("perak_node_sessions", "Open sessions of nodes", registry=registry)
        self.reports = Counter("perak_reports", "Applied reports by type", ["type"], registry=registry)
        self.refused_reports = Counter("perak_reports_refused", "Refused reports", registry=registry)
        self.settle_seconds = Histogram(
            "perak_settle_seconds", "From a run's last report to its receipt", registry=registry,
            buckets=LATENCY_BUCKETS,
        )  # fmt: skip
        self.market_seconds = Histogram(
            "perak_market_seconds", "One clearing of the market", registry=registry, buckets=LATENCY_BUCKETS
        )
        self.retried_transactions = Counter(
            "perak_transactions_retried", "Transactions that met another one", registry=registry
        )
        self.loop_errors = Counter(
            "perak_loop_errors", "Failed rounds of a loop", ["loop"], registry=registry
        )

    def render(self, counts: Counts | None) -> bytes:
        """The text for Prometheus. `counts` None: the database is away, and what is missing is not zero."""
        self._counts.clear()
        if counts is not None:
            for kind, states in (("job", counts.jobs), ("node", counts.nodes), ("lease", counts.leases)):
                for state, number in states.items():
                    self._counts.labels(kind, state).set(number)
        return generate_latest(self.registry)
