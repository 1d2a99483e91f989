"""The client that waits. Its twin that awaits is `aio`; what both do is in `calls` and `flows`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from httpx_sse import EventSource

from perak.client import calls, flows
from perak.client.calls import Call, Reply
from perak.client.config import Target, resolve
from perak.client.errors import ExchangeUnreachable, error_of
from perak.client.events import SILENCE_SECONDS_MAX, End, Follower, JobEvent, Log
from perak.client.flows import Fetch, Flow, JobSource, Pause, Progress, Send, Step, Unreached, Upload, Work
from perak.client.transport import CHUNK_BYTES, Sink, chunks, client_options, patient, reply_of, unreached
from perak.wire import api
from perak.wire.api.devices import NodeDevices, PassportView

T = TypeVar("T")


class Client:
    """An exchange, seen by one key. Keep it open: a warm connection answers in milliseconds.

    Without arguments it finds its exchange as the command line does: PERAK_URL and PERAK_API_KEY, the profile
    of `perak login`, or a `perak up` on this machine. Jobs may be named by id, name or end of id.
    Raises `PerakError`; see `perak.client.errors`.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        profile: str | None = None,
        *,
        target: Target | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.target = target or resolve(url=url, api_key=api_key, profile=profile)
        self._http = httpx.Client(**client_options(self.target), transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # Who and where

    def me(self) -> api.Me:
        """Who the key belongs to."""
        return self._perform(calls.me())

    def exchange(self) -> api.Exchange:
        """What anyone may know of the exchange."""
        return self._perform(calls.exchange())

    # Jobs

    def quote(self, job: JobSource) -> api.Quote:
        """What the job would cost on each offer, and why it doesn't fit on the others."""
        return self._carry_out(flows.quote(job, url=self.target.url))

    def hold_quote(self, job: JobSource) -> api.HeldQuote:
        """Keep the best offer for the job for a minute, at its price; nothing is charged."""
        return self._carry_out(flows.hold_quote(job, url=self.target.url))

    def why(self, ref: str) -> api.Why:
        """Why a job is where it is and not elsewhere, or why it waits."""
        return self._carry_out(flows.on_job(ref, calls.why, url=self.target.url))

    def prices(self, *, hours: int | None = None) -> api.Prices:
        """The public price history, by class and hour."""
        return self._perform(calls.prices(hours=hours))

    def submit(
        self, job: JobSource, *, progress: Progress | None = None, quote: str | None = None
    ) -> api.Job:
        """Queue the job; its work folder goes up first unless the exchange has it. `quote`: a held quote."""
        return self._carry_out(flows.submit(job, url=self.target.url, progress=progress, quote=quote))

    def run(
        self,
        job: JobSource,
        *,
        on_event: Callable[[JobEvent], None] | None = None,
        progress: Progress | None = None,
    ) -> api.JobDetail:
        """Submit the job, follow it to its end, and return how it ended. `on_event` sees logs and steps."""
        submitted = self.submit(job, progress=progress)
        for event in self.events(submitted.id):
            if on_event is not None:
                on_event(event)
        return self.job(submitted.id)

    def jobs(
        self, *, state: Iterable[str] = (), name: str | None = None, limit: int | None = None
    ) -> Iterator[api.Job]:
        """The project's jobs, newest first: all of them, or the first `limit`."""
        return self._pages(calls.jobs(states=state, name=name, limit=limit), limit)

    def job(self, ref: str) -> api.JobDetail:
        """One job with its file, its runs and the steps of its life."""
        return self._carry_out(flows.on_job(ref, calls.job, url=self.target.url))

    def cancel(self, ref: str) -> api.Job:
        """Ask for the job to be cancelled."""
        return self._carry_out(flows.on_job(ref, calls.cancel, url=self.target.url))

    def open_tunnel(self, ref: str, *, certificate: str) -> api.Tunnel:
        """Ask the job's node to dial in; `perak.client.tunnels` does what comes next."""
        call = partial(calls.open_tunnel, certificate=certificate)
        return self._carry_out(flows.on_job(ref, call, url=self.target.url))

    def events(self, ref: str, *, last_event_id: str | None = None) -> Iterator[JobEvent]:
        """What happens to the job, log included, to its end; goes on by itself after a cut."""
        job_id = self._carry_out(flows.resolve_job(ref, url=self.target.url))
        follower = Follower(job_id, url=self.target.url, last_event_id=last_event_id)
        while not follower.ended:
            outcome: Reply | Unreached | None = None
            try:
                with self._stream(follower.path, follower.headers, SILENCE_SECONDS_MAX) as response:
                    if response.status_code == httpx.codes.OK:
                        for sse in EventSource(response).iter_sse():
                            if (event := follower.take(sse)) is not None:
                                yield event
                            if follower.ended:
                                return
                    else:
                        outcome = _read(response)
            except httpx.TransportError as error:
                outcome = unreached(error)
            time.sleep(follower.pause_after(outcome))

    def logs(self, ref: str, *, follow: bool = False, attempt: int | None = None) -> Iterator[bytes]:
        """The log as bytes: that of the latest attempt (or `attempt`) so far, or with `follow` to the end."""
        if follow:
            for event in self.events(ref):
                if isinstance(event, Log) and attempt in (None, event.attempt):
                    yield event.data
            return
        job_id = self._carry_out(flows.resolve_job(ref, url=self.target.url))
        params = {} if attempt is None else {"attempt": str(attempt)}
        try:
            with self._stream(calls.log_path(job_id), {}, flows.TRANSFER_TIMEOUT_SECONDS, params) as response:
                if response.status_code != httpx.codes.OK:
                    raise error_of(calls.problem_of(_read(response)))
                yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise ExchangeUnreachable(self.target.url, unreached(error).reason) from None

    def wait(self, ref: str) -> api.Job:
        """Wait until the job has ended and is settled."""
        for event in self.events(ref):
            if isinstance(event, End):
                return event.job
        raise AssertionError("events end with End or raise")

    def download(self, ref: str, dest: str | Path, *, progress: Progress | None = None) -> Path:
        """Unpack the outputs of the job into `dest`, a new or an empty folder."""
        return self._carry_out(flows.download(ref, Path(dest), url=self.target.url, progress=progress))

    # Receipts

    def receipts(self, job: str | None = None) -> Iterator[api.ReceiptSummary]:
        """The project's receipts, or those of one job (its id)."""
        return self._pages(calls.receipts(job))

    def receipt(self, receipt_id: str) -> api.Receipt:
        """A receipt as it stands in a file."""
        return self._perform(calls.receipt(receipt_id))

    # Providers

    def nodes(self) -> Iterator[api.Node]:
        """A provider's own nodes; all of them for an operator."""
        return self._pages(calls.nodes())

    def node(self, node_id: str) -> api.Node:
        return self._perform(calls.node(node_id))

    def node_set(
        self,
        node_id: str,
        mode: api.Mode,
        *,
        within_seconds: int | None = None,
    ) -> api.Node:
        """Pause, drain or resume a node; runs go on to their end, or are stopped `within_seconds`."""
        change = api.NodeChange(mode=mode, within_seconds=within_seconds)
        return self._perform(calls.node_set(node_id, change))

    def node_revoke(self, node_id: str) -> api.Node:
        """Take a node's identity from it for good."""
        return self._perform(calls.node_revoke(node_id))

    def invite(self, *, ttl_seconds: int = 3600, uses: int = 1) -> api.Invite:
        """A new invite, with which a machine becomes a node."""
        return self._perform(calls.invite(ttl_seconds=ttl_seconds, uses=uses))

    def offers(self) -> Iterator[api.Offer]:
        """Every standing offer."""
        return self._pages(calls.offers())

    def offer(self, offer_id: str) -> api.Offer:
        return self._perform(calls.offer(offer_id))

    def offer_set(self, offer_id: str, change: api.OfferChange) -> api.Offer:
        """Change the prices or the state of one's own offer; leases that run keep their price."""
        return self._perform(calls.offer_set(offer_id, change))

    def node_devices(self, node_id: str) -> NodeDevices:
        """Grades of a node's devices, with the reasons."""
        return self._perform(calls.node_devices(node_id))

    def passport(self, ref: str) -> PassportView:
        """A device's passport, by the digest of one of its entries, or by one's own device's UUID."""
        return self._perform(calls.passport(ref))

    def checklist(self, digest: str) -> api.ChecklistView:
        """How the escape checklist came out in a sandbox tier that an offer or a receipt names so."""
        return self._perform(calls.checklist(digest))

    # Carbon

    def grid(self) -> api.GridZones:
        """The zones of the grid that have a feed, as they are now."""
        return self._perform(calls.grid())

    def grid_zone(self, region: str) -> api.GridZone:
        """A zone's hours of average intensity, measured and ahead."""
        return self._perform(calls.grid_zone(region))

    def carbon_report(self, *, month: str | None = None) -> api.CarbonReport:
        """The carbon of the project's receipts of a month, like ``2026-11``; this one, unless given."""
        return self._perform(calls.carbon_report(month=month))

    # Webhooks

    def webhooks(self) -> Iterator[api.Webhook]:
        """Whom the exchange tells of the project's nodes."""
        return self._pages(calls.webhooks())

    def webhook(self, webhook_id: str) -> api.WebhookDetail:
        """A webhook with its latest deliveries."""
        return self._perform(calls.webhook(webhook_id))

    def webhook_add(self, url: str, *, events: Iterable[str] = ()) -> api.WebhookCreated:
        """Tell an address of these events, or of all; its secret is in the answer and nowhere else."""
        return self._perform(calls.webhook_add(url, events=events))

    def webhook_test(self, webhook_id: str) -> api.WebhookDetail:
        """Send a test message."""
        return self._perform(calls.webhook_test(webhook_id))

    def webhook_remove(self, webhook_id: str) -> api.WebhookDetail:
        return self._perform(calls.webhook_remove(webhook_id))

    # Money

    def wallet(self) -> api.Wallet:
        return self._perform(calls.wallet())

    def earnings(self, *, days: int = 30) -> api.Earnings:
        """What a provider's nodes earned in the last days, by node and by day, and what it has in all."""
        return self._perform(calls.earnings(days=days))

    def entries(self) -> Iterator[api.EntryView]:
        """The lines of the project's account, newest first."""
        return self._pages(calls.entries())

    def fund(self, amount: str, *, project: str | None = None, note: str = "") -> api.EntryView:
        """Record money received from outside (operator)."""
        return self._perform(calls.fund(amount, project=project, note=note))

    # Secrets

    def secrets(self) -> Iterator[api.Secret]:
        """The project's secrets, by name and without their values."""
        return self._pages(calls.secrets())

    def secret_set(self, name: str, value: bytes) -> api.Secret:
        """Set or replace a secret of the project; jobs that name it are given it."""
        return self._perform(calls.secret_set(name, value))

    def secret_remove(self, name: str) -> api.Secret:
        return self._perform(calls.secret_remove(name))

    # Keys and projects

    def keys(self) -> Iterator[api.Key]:
        return self._pages(calls.keys())

    def key_create(
        self,
        name: str,
        roles: Iterable[api.Role],
        *,
        project: str | None = None,
        scope: api.Scope = "full",
        ttl_seconds: int | None = None,
    ) -> api.KeyCreated:
        """A new key; its secret is in the answer and nowhere else."""
        call = calls.key_create(name, roles, project=project, scope=scope, ttl_seconds=ttl_seconds)
        return self._perform(call)

    def key_revoke(self, key_id: str) -> api.Key:
        return self._perform(calls.key_revoke(key_id))

    def trail(self) -> Iterator[api.TrailEntry]:
        """What the project's keys did with keys, money, secrets and nodes; everybody's for an operator."""
        return self._pages(calls.trail())

    def projects(self) -> Iterator[api.Project]:
        return self._pages(calls.projects())

    def project_create(self, name: str) -> api.Project:
        return self._perform(calls.project_create(name))

    # Carrying out steps

    def _perform(self, call: Call[T]) -> T:
        return self._carry_out(flows.perform(call, url=self.target.url))

    def _pages(self, call: Call[api.Page[T]], limit: int | None = None) -> Iterator[T]:
        flow = flows.pages(call, url=self.target.url, limit=limit)
        outcome: object = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration:
                return
            if isinstance(step, list):
                outcome = None
                yield from step
            else:
                outcome = self._take(step)

    def _carry_out(self, flow: Flow[T]) -> T:
        outcome: object = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as stop:
                result: T = stop.value
                return result
            try:
                outcome = self._take(step)
            except BaseException:
                flow.close()
                raise

    def _take(self, step: Step) -> object:
        match step:
            case Send(call):
                return self._send(call)
            case Upload():
                return self._upload(step)
            case Fetch():
                return self._fetch(step)
            case Pause(seconds):
                time.sleep(seconds)
                return None
            case Work(work):
                return work()

    def _send(self, call: Call[T]) -> Reply | Unreached:
        try:
            response = self._http.request(
                call.method,
                call.path,
                params=dict(call.params),
                content=call.content,
                headers=call.headers,
            )
        except httpx.TransportError as error:
            return unreached(error)
        return reply_of(response)

    def _upload(self, step: Upload) -> Reply | Unreached:
        step.source.seek(0)
        headers = {"Content-Length": str(step.size_bytes), "Content-Type": "application/octet-stream"}
        timeout = patient(flows.TRANSFER_TIMEOUT_SECONDS)
        try:
            response = self._http.put(step.path, content=chunks(step), headers=headers, timeout=timeout)
        except httpx.TransportError as error:
            return unreached(error)
        return reply_of(response)

    def _fetch(self, step: Fetch) -> Reply | Unreached:
        step.sink.seek(0)
        step.sink.truncate()
        try:
            with self._stream(step.path, {}, flows.TRANSFER_TIMEOUT_SECONDS) as response:
                if response.status_code != httpx.codes.OK:
                    return _read(response)
                sink = Sink(step, response)
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    sink.write(chunk)
                return Reply(status=response.status_code, headers=response.headers)
        except httpx.TransportError as error:
            return unreached(error)

    def _stream(
        self, path: str, headers: dict[str, str], silence_seconds: float, params: dict[str, str] | None = None
    ) -> AbstractContextManager[httpx.Response]:
        timeout = patient(silence_seconds)
        return self._http.stream("GET", path, headers=headers, params=params, timeout=timeout)


def _read(response: httpx.Response) -> Reply:
    response.read()
    return reply_of(response)
