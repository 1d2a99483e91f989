"""The client that awaits. Its twin that waits is `sync`; what both do is in `calls` and `flows`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
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


class AsyncClient:
    """`perak.Client` for asyncio: the same verbs, awaited; lists and events are asynchronous iterators."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        profile: str | None = None,
        *,
        target: Target | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.target = target or resolve(url=url, api_key=api_key, profile=profile)
        self._http = httpx.AsyncClient(**client_options(self.target), transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # Who and where

    async def me(self) -> api.Me:
        """Who the key belongs to."""
        return await self._perform(calls.me())

    async def exchange(self) -> api.Exchange:
        """What anyone may know of the exchange."""
        return await self._perform(calls.exchange())

    # Jobs

    async def quote(self, job: JobSource) -> api.Quote:
        """What the job would cost on each offer, and why it doesn't fit on the others."""
        return await self._carry_out(flows.quote(job, url=self.target.url))

    async def hold_quote(self, job: JobSource) -> api.HeldQuote:
        """Keep the best offer for the job for a minute, at its price; nothing is charged."""
        return await self._carry_out(flows.hold_quote(job, url=self.target.url))

    async def why(self, ref: str) -> api.Why:
        """Why a job is where it is and not elsewhere, or why it waits."""
        return await self._carry_out(flows.on_job(ref, calls.why, url=self.target.url))

    async def prices(self, *, hours: int | None = None) -> api.Prices:
        """The public price history, by class and hour."""
        return await self._perform(calls.prices(hours=hours))

    async def submit(
        self, job: JobSource, *, progress: Progress | None = None, quote: str | None = None
    ) -> api.Job:
        """Queue the job; its work folder goes up first unless the exchange has it. `quote`: a held quote."""
        return await self._carry_out(flows.submit(job, url=self.target.url, progress=progress, quote=quote))

    async def run(
        self,
        job: JobSource,
        *,
        on_event: Callable[[JobEvent], Awaitable[None] | None] | None = None,
        progress: Progress | None = None,
    ) -> api.JobDetail:
        """Submit the job, follow it to its end, and return how it ended. `on_event` sees logs and steps."""
        submitted = await self.submit(job, progress=progress)
        async for event in self.events(submitted.id):
            if on_event is not None and (waiting := on_event(event)) is not None:
                await waiting
        return await self.job(submitted.id)

    def jobs(
        self, *, state: Iterable[str] = (), name: str | None = None, limit: int | None = None
    ) -> AsyncIterator[api.Job]:
        """The project's jobs, newest first: all of them, or the first `limit`."""
        return self._pages(calls.jobs(states=state, name=name, limit=limit), limit)

    async def job(self, ref: str) -> api.JobDetail:
        """One job with its file, its runs and the steps of its life."""
        return await self._carry_out(flows.on_job(ref, calls.job, url=self.target.url))

    async def cancel(self, ref: str) -> api.Job:
        """Ask for the job to be cancelled."""
        return await self._carry_out(flows.on_job(ref, calls.cancel, url=self.target.url))

    async def open_tunnel(self, ref: str, *, certificate: str) -> api.Tunnel:
        """Ask the job's node to dial in; `perak.client.tunnels` does what comes next."""
        call = partial(calls.open_tunnel, certificate=certificate)
        return await self._carry_out(flows.on_job(ref, call, url=self.target.url))

    async def events(self, ref: str, *, last_event_id: str | None = None) -> AsyncIterator[JobEvent]:
        """What happens to the job, log included, to its end; goes on by itself after a cut."""
        job_id = await self._carry_out(flows.resolve_job(ref, url=self.target.url))
        follower = Follower(job_id, url=self.target.url, last_event_id=last_event_id)
        while not follower.ended:
            outcome: Reply | Unreached | None = None
            try:
                async with self._stream(follower.path, follower.headers, SILENCE_SECONDS_MAX) as response:
                    if response.status_code == httpx.codes.OK:
                        async for sse in EventSource(response).aiter_sse():
                            if (event := follower.take(sse)) is not None:
                                yield event
                            if follower.ended:
                                return
                    else:
                        outcome = await _read(response)
            except httpx.TransportError as error:
                outcome = unreached(error)
            await asyncio.sleep(follower.pause_after(outcome))

    async def logs(
        self, ref: str, *, follow: bool = False, attempt: int | None = None
    ) -> AsyncIterator[bytes]:
        """The log as bytes: that of the latest attempt (or `attempt`) so far, or with `follow` to the end."""
        if follow:
            async for event in self.events(ref):
                if isinstance(event, Log) and attempt in (None, event.attempt):
                    yield event.data
            return
        job_id = await self._carry_out(flows.resolve_job(ref, url=self.target.url))
        params = {} if attempt is None else {"attempt": str(attempt)}
        try:
            async with self._stream(
                calls.log_path(job_id), {}, flows.TRANSFER_TIMEOUT_SECONDS, params
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise error_of(calls.problem_of(await _read(response)))
                async for chunk in response.aiter_bytes():
                    yield chunk
        except httpx.TransportError as error:
            raise ExchangeUnreachable(self.target.url, unreached(error).reason) from None

    async def wait(self, ref: str) -> api.Job:
        """Wait until the job has ended and is settled."""
        async for event in self.events(ref):
            if isinstance(event, End):
                return event.job
        raise AssertionError("events end with End or raise")

    async def download(self, ref: str, dest: str | Path, *, progress: Progress | None = None) -> Path:
        """Unpack the outputs of the job into `dest`, a new or an empty folder."""
        return await self._carry_out(flows.download(ref, Path(dest), url=self.target.url, progress=progress))

    # Receipts

    def receipts(self, job: str | None = None) -> AsyncIterator[api.ReceiptSummary]:
        """The project's receipts, or those of one job (its id)."""
        return self._pages(calls.receipts(job))

    async def receipt(self, receipt_id: str) -> api.Receipt:
        """A receipt as it stands in a file."""
        return await self._perform(calls.receipt(receipt_id))

    # Providers

    def nodes(self) -> AsyncIterator[api.Node]:
        """A provider's own nodes; all of them for an operator."""
        return self._pages(calls.nodes())

    async def node(self, node_id: str) -> api.Node:
        return await self._perform(calls.node(node_id))

    async def node_set(
        self,
        node_id: str,
        mode: api.Mode,
        *,
        within_seconds: int | None = None,
    ) -> api.Node:
        """Pause, drain or resume a node; runs go on to their end, or are stopped `within_seconds`."""
        change = api.NodeChange(mode=mode, within_seconds=within_seconds)
        return await self._perform(calls.node_set(node_id, change))

    async def node_revoke(self, node_id: str) -> api.Node:
        """Take a node's identity from it for good."""
        return await self._perform(calls.node_revoke(node_id))

    async def invite(self, *, ttl_seconds: int = 3600, uses: int = 1) -> api.Invite:
        """A new invite, with which a machine becomes a node."""
        return await self._perform(calls.invite(ttl_seconds=ttl_seconds, uses=uses))

    def offers(self) -> AsyncIterator[api.Offer]:
        """Every standing offer."""
        return self._pages(calls.offers())

    async def offer(self, offer_id: str) -> api.Offer:
        return await self._perform(calls.offer(offer_id))

    async def offer_set(self, offer_id: str, change: api.OfferChange) -> api.Offer:
        """Change the prices or the state of one's own offer; leases that run keep their price."""
        return await self._perform(calls.offer_set(offer_id, change))

    async def node_devices(self, node_id: str) -> NodeDevices:
        """Grades of a node's devices, with the reasons."""
        return await self._perform(calls.node_devices(node_id))

    async def passport(self, ref: str) -> PassportView:
        """A device's passport, by the digest of one of its entries, or by one's own device's UUID."""
        return await self._perform(calls.passport(ref))

    async def checklist(self, digest: str) -> api.ChecklistView:
        """How the escape checklist came out in a sandbox tier that an offer or a receipt names so."""
        return await self._perform(calls.checklist(digest))

    # Carbon

    async def grid(self) -> api.GridZones:
        """The zones of the grid that have a feed, as they are now."""
        return await self._perform(calls.grid())

    async def grid_zone(self, region: str) -> api.GridZone:
        """A zone's hours of average intensity, measured and ahead."""
        return await self._perform(calls.grid_zone(region))

    async def carbon_report(self, *, month: str | None = None) -> api.CarbonReport:
        """The carbon of the project's receipts of a month, like ``2026-11``; this one, unless given."""
        return await self._perform(calls.carbon_report(month=month))

    # Webhooks

    def webhooks(self) -> AsyncIterator[api.Webhook]:
        """Whom the exchange tells of the project's nodes."""
        return self._pages(calls.webhooks())

    async def webhook(self, webhook_id: str) -> api.WebhookDetail:
        """A webhook with its latest deliveries."""
        return await self._perform(calls.webhook(webhook_id))

    async def webhook_add(self, url: str, *, events: Iterable[str] = ()) -> api.WebhookCreated:
        """Tell an address of these events, or of all; its secret is in the answer and nowhere else."""
        return await self._perform(calls.webhook_add(url, events=events))

    async def webhook_test(self, webhook_id: str) -> api.WebhookDetail:
        """Send a test message."""
        return await self._perform(calls.webhook_test(webhook_id))

    async def webhook_remove(self, webhook_id: str) -> api.WebhookDetail:
        return await self._perform(calls.webhook_remove(webhook_id))

    # Money

    async def wallet(self) -> api.Wallet:
        return await self._perform(calls.wallet())

    async def earnings(self, *, days: int = 30) -> api.Earnings:
        """What a provider's nodes earned in the last days, by node and by day, and what it has in all."""
        return await self._perform(calls.earnings(days=days))

    def entries(self) -> AsyncIterator[api.EntryView]:
        """The lines of the project's account, newest first."""
        return self._pages(calls.entries())

    async def fund(self, amount: str, *, project: str | None = None, note: str = "") -> api.EntryView:
        """Record money received from outside (operator)."""
        return await self._perform(calls.fund(amount, project=project, note=note))

    # Secrets

    def secrets(self) -> AsyncIterator[api.Secret]:
        """The project's secrets, by name and without their values."""
        return self._pages(calls.secrets())

    async def secret_set(self, name: str, value: bytes) -> api.Secret:
        """Set or replace a secret of the project; jobs that name it are given it."""
        return await self._perform(calls.secret_set(name, value))

    async def secret_remove(self, name: str) -> api.Secret:
        return await self._perform(calls.secret_remove(name))

    # Keys and projects

    def keys(self) -> AsyncIterator[api.Key]:
        return self._pages(calls.keys())

    async def key_create(
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
        return await self._perform(call)

    async def key_revoke(self, key_id: str) -> api.Key:
        return await self._perform(calls.key_revoke(key_id))

    def trail(self) -> AsyncIterator[api.TrailEntry]:
        """What the project's keys did with keys, money, secrets and nodes; everybody's for an operator."""
        return self._pages(calls.trail())

    def projects(self) -> AsyncIterator[api.Project]:
        return self._pages(calls.projects())

    async def project_create(self, name: str) -> api.Project:
        return await self._perform(calls.project_create(name))

    # Carrying out steps

    async def _perform(self, call: Call[T]) -> T:
        return await self._carry_out(flows.perform(call, url=self.target.url))

    async def _pages(self, call: Call[api.Page[T]], limit: int | None = None) -> AsyncIterator[T]:
        flow = flows.pages(call, url=self.target.url, limit=limit)
        outcome: object = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration:
                return
            if isinstance(step, list):
                outcome = None
                for item in step:
                    yield item
            else:
                outcome = await self._take(step)

    async def _carry_out(self, flow: Flow[T]) -> T:
        outcome: object = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as stop:
                result: T = stop.value
                return result
            try:
                outcome = await self._take(step)
            except BaseException:
                flow.close()
                raise

    async def _take(self, step: Step) -> object:
        match step:
            case Send(call):
                return await self._send(call)
            case Upload():
                return await self._upload(step)
            case Fetch():
                return await self._fetch(step)
            case Pause(seconds):
                await asyncio.sleep(seconds)
                return None
            case Work(work):
                return await asyncio.to_thread(work)

    async def _send(self, call: Call[T]) -> Reply | Unreached:
        try:
            response = await self._http.request(
                call.method,
                call.path,
                params=dict(call.params),
                content=call.content,
                headers=call.headers,
            )
        except httpx.TransportError as error:
            return unreached(error)
        return reply_of(response)

    async def _upload(self, step: Upload) -> Reply | Unreached:
        step.source.seek(0)
        headers = {"Content-Length": str(step.size_bytes), "Content-Type": "application/octet-stream"}
        timeout = patient(flows.TRANSFER_TIMEOUT_SECONDS)
        try:
            response = await self._http.put(
                step.path, content=_chunks(step), headers=headers, timeout=timeout
            )
        except httpx.TransportError as error:
            return unreached(error)
        return reply_of(response)

    async def _fetch(self, step: Fetch) -> Reply | Unreached:
        step.sink.seek(0)
        step.sink.truncate()
        try:
            async with self._stream(step.path, {}, flows.TRANSFER_TIMEOUT_SECONDS) as response:
                if response.status_code != httpx.codes.OK:
                    return await _read(response)
                sink = Sink(step, response)
                async for chunk in response.aiter_bytes(CHUNK_BYTES):
                    sink.write(chunk)
                return Reply(status=response.status_code, headers=response.headers)
        except httpx.TransportError as error:
            return unreached(error)

    def _stream(
        self, path: str, headers: dict[str, str], silence_seconds: float, params: dict[str, str] | None = None
    ) -> AbstractAsyncContextManager[httpx.Response]:
        timeout = patient(silence_seconds)
        return self._http.stream("GET", path, headers=headers, params=params, timeout=timeout)


async def _read(response: httpx.Response) -> Reply:
    await response.aread()
    return reply_of(response)


async def _chunks(step: Upload) -> AsyncIterator[bytes]:
    """The body of an upload; what it reads is a small file of this machine, so it is read in place."""
    for chunk in chunks(step):
        yield chunk
