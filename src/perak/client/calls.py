"""Every request to the exchange, described once for the synchronous and the asynchronous client.

A `Call` says what to send and how to read the answer; nothing here does I/O.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from perak.client.errors import InvalidArgument, NotAnExchange, error_of
from perak.wire import api
from perak.wire.api.devices import NodeDevices, PassportView

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer, read whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request and how its answer is read. The same idempotency key goes with each repetition."""

    method: str
    path: str
    read: Callable[[Reply], T]
    params: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = field(default=None, repr=False)
    content_type: str = "application/json"
    idempotency_key: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        headers = {}
        if self.content is not None:
            headers["Content-Type"] = self.content_type
        if self.idempotency_key is not None:
            headers["Idempotency-Key"] = self.idempotency_key
        return headers

    def result(self, reply: Reply) -> T:
        """What the answer says. Raises ExchangeError for a problem, NotAnExchange for anything else."""
        if not 200 <= reply.status < 300:
            raise error_of(problem_of(reply))
        try:
            return self.read(reply)
        except ValidationError as error:
            raise NotAnExchange(
                f"The answer to {self.method} {self.path} is not understood ({error.error_count()} fields). "
                "Is the address right? Is this client older than the exchange? `pip install --upgrade perak`"
            ) from None


def problem_of(reply: Reply) -> api.Problem:
    """The problem in a refusal; one is made up where the answer isn't the exchange's own (a proxy's, say)."""
    try:
        return api.Problem.model_validate_json(reply.content)
    except ValidationError:
        text = reply.content[:200].decode(errors="replace").strip()
        detail = f"The answer was HTTP {reply.status}" + (f": {text}" if text else ".")
        return api.Problem(
            title="HTTP error", status=reply.status, detail=detail, code=f"http_{reply.status}"
        )


def _get(path: str, model: type[M], **params: str | None) -> Call[M]:
    return Call(method="GET", path=path, read=_reads(model), params=_given(params))


def _write(method: str, path: str, model: type[M], body: BaseModel | None = None) -> Call[M]:
    """A change: it carries an idempotency key, so sending it again is harmless."""
    content = None if body is None else body.model_dump_json(exclude_unset=True).encode()
    return Call(
        method=method, path=path, read=_reads(model), content=content, idempotency_key=uuid.uuid4().hex
    )


def _body(model: type[M], **fields: object) -> M:
    """The body of a request. Raises InvalidArgument, naming the field."""
    try:
        return model(**fields)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in wrong["loc"])
        raise InvalidArgument(f"{place} can't be {str(wrong['input'])[:60]!r}: {wrong['msg']}.") from None


def _reads(model: type[M]) -> Callable[[Reply], M]:
    return lambda reply: model.model_validate_json(reply.content)


def _given(params: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in params.items() if value is not None}


def _part(text: str) -> str:
    return quote(text, safe="@")


def with_cursor(call: Call[api.Page[T]], cursor: str | None) -> Call[api.Page[T]]:
    """The same list from `cursor` on."""
    return call if cursor is None else replace(call, params={**call.params, "cursor": cursor})


# The exchange and the caller


def me() -> Call[api.Me]:
    return _get("/v1/me", api.Me)


def exchange() -> Call[api.Exchange]:
    return _get("/v1/exchange", api.Exchange)


# Jobs


def quote_job(job: Mapping[str, Any], workdir: str | None = None) -> Call[api.Quote]:
    return _write("POST", "/v1/quotes", api.Quote, api.JobSubmit(job=dict(job), workdir=workdir))


def hold_quote(job: Mapping[str, Any]) -> Call[api.HeldQuote]:
    return _write("POST", "/v1/quotes/held", api.HeldQuote, api.JobSubmit(job=dict(job)))


def why(job_id: str) -> Call[api.Why]:
    return _get(f"/v1/jobs/{_part(job_id)}/why", api.Why)


def prices(*, hours: int | None = None) -> Call[api.Prices]:
    return _get("/v1/prices", api.Prices, hours=None if hours is None else str(hours))


def submit(
    job: Mapping[str, Any],
    workdir: str | None = None,
    *,
    workdir_key: str | None = None,
    quote: str | None = None,
) -> Call[api.Job]:
    body = {"job": dict(job), "workdir": workdir}
    if workdir_key is not None:
        body["workdir_key"] = workdir_key
    if quote is not None:
        body["quote"] = quote
    return _write("POST", "/v1/jobs", api.Job, api.JobSubmit.model_validate(body))


def jobs(
    *, states: Iterable[str] = (), name: str | None = None, limit: int | None = None
) -> Call[api.Page[api.Job]]:
    """`limit` counts all pages together; a page has its own bound."""
    shown = str(min(limit, api.PAGE_LIMIT_MAX)) if limit else None
    return _get("/v1/jobs", api.Page[api.Job], state=",".join(states) or None, name=name, limit=shown)


def job(job_id: str) -> Call[api.JobDetail]:
    return _get(f"/v1/jobs/{_part(job_id)}", api.JobDetail)


def cancel(job_id: str) -> Call[api.Job]:
    return _write("POST", f"/v1/jobs/{_part(job_id)}/cancel", api.Job)


def open_tunnel(job_id: str, certificate: str) -> Call[api.Tunnel]:
    body = _body(api.TunnelCreate, certificate=certificate)
    return _write("POST", f"/v1/jobs/{_part(job_id)}/tunnels", api.Tunnel, body)


def log_path(job_id: str) -> str:
    return f"/v1/jobs/{_part(job_id)}/log"


def events_path(job_id: str) -> str:
    return f"/v1/jobs/{_part(job_id)}/events"


def outputs_path(job_id: str) -> str:
    return f"/v1/jobs/{_part(job_id)}/outputs"


# Blobs


def has_blob(digest: str) -> Call[bool]:
    def read(reply: Reply) -> bool:
        return reply.status == 200

    return _BlobCall(method="HEAD", path=blob_path(digest), read=read)


class _BlobCall(Call[bool]):
    """A question whose 404 is an answer."""

    __slots__ = ()

    def result(self, reply: Reply) -> bool:
        return False if reply.status == 404 else Call.result(self, reply)


def blob_path(digest: str) -> str:
    return f"/v1/blobs/{digest}"


# Receipts, nodes, offers


def receipts(job_id: str | None = None) -> Call[api.Page[api.ReceiptSummary]]:
    return _get("/v1/receipts", api.Page[api.ReceiptSummary], job=job_id)


def receipt(receipt_id: str) -> Call[api.Receipt]:
    return _get(f"/v1/receipts/{_part(receipt_id)}", api.Receipt)


def nodes() -> Call[api.Page[api.Node]]:
    return _get("/v1/nodes", api.Page[api.Node])


def node(node_id: str) -> Call[api.Node]:
    return _get(f"/v1/nodes/{_part(node_id)}", api.Node)


def node_set(node_id: str, change: api.NodeChange) -> Call[api.Node]:
    return _write("PATCH", f"/v1/nodes/{_part(node_id)}", api.Node, change)


def node_revoke(node_id: str) -> Call[api.Node]:
    return _write("DELETE", f"/v1/nodes/{_part(node_id)}", api.Node)


def invite(*, ttl_seconds: int, uses: int) -> Call[api.Invite]:
    body = _body(api.InviteCreate, ttl_seconds=ttl_seconds, uses=uses)
    return _write("POST", "/v1/invites", api.Invite, body)


def offers() -> Call[api.Page[api.Offer]]:
    return _get("/v1/offers", api.Page[api.Offer])


def offer(offer_id: str) -> Call[api.Offer]:
    return _get(f"/v1/offers/{_part(offer_id)}", api.Offer)


def offer_set(offer_id: str, change: api.OfferChange) -> Call[api.Offer]:
    return _write("PATCH", f"/v1/offers/{_part(offer_id)}", api.Offer, change)


def node_devices(node_id: str) -> Call[NodeDevices]:
    return _get(f"/v1/nodes/{_part(node_id)}/devices", NodeDevices)


def passport(ref: str) -> Call[PassportView]:
    """By the digest of an entry, or by one's own device."""
    if ref.startswith("sha256:"):
        return _get(f"/v1/passports/{_part(ref)}", PassportView)
    return _get(f"/v1/devices/{_part(ref)}/passport", PassportView)


def checklist(digest: str) -> Call[api.ChecklistView]:
    return _get(f"/v1/checklists/{_part(digest)}", api.ChecklistView)


# Carbon


def grid() -> Call[api.GridZones]:
    return _get("/v1/grid", api.GridZones)


def grid_zone(region: str) -> Call[api.GridZone]:
    return _get(f"/v1/grid/{_part(region)}", api.GridZone)


def carbon_report(*, month: str | None) -> Call[api.CarbonReport]:
    return _get("/v1/reports/carbon", api.CarbonReport, month=month)


# Webhooks


def webhooks() -> Call[api.Page[api.Webhook]]:
    return _get("/v1/webhooks", api.Page[api.Webhook])


def webhook(webhook_id: str) -> Call[api.WebhookDetail]:
    return _get(f"/v1/webhooks/{_part(webhook_id)}", api.WebhookDetail)


def webhook_add(url: str, *, events: Iterable[str]) -> Call[api.WebhookCreated]:
    body = _body(api.WebhookCreate, url=url, events=list(events))
    return _write("POST", "/v1/webhooks", api.WebhookCreated, body)


def webhook_test(webhook_id: str) -> Call[api.WebhookDetail]:
    return _write("POST", f"/v1/webhooks/{_part(webhook_id)}/test", api.WebhookDetail)


def webhook_remove(webhook_id: str) -> Call[api.WebhookDetail]:
    return _write("DELETE", f"/v1/webhooks/{_part(webhook_id)}", api.WebhookDetail)


# Money


def wallet() -> Call[api.Wallet]:
    return _get("/v1/wallet", api.Wallet)


def earnings(*, days: int) -> Call[api.Earnings]:
    return _get("/v1/earnings", api.Earnings, days=str(days))


def entries() -> Call[api.Page[api.EntryView]]:
    return _get("/v1/wallet/entries", api.Page[api.EntryView])


def fund(amount: str, *, project: str | None, note: str) -> Call[api.EntryView]:
    body = _body(api.Funding, amount=amount, project=project, note=note)
    return _write("POST", "/v1/wallet/funds", api.EntryView, body)


# Secrets


def secrets() -> Call[api.Page[api.Secret]]:
    return _get("/v1/secrets", api.Page[api.Secret])


def secret_set(name: str, value: bytes) -> Call[api.Secret]:
    """Without an idempotency key: to set the same again is harmless, and no digest of the value is kept."""
    path = f"/v1/secrets/{_part(name)}"
    read = _reads(api.Secret)
    return Call(method="PUT", path=path, read=read, content=value, content_type="application/octet-stream")


def secret_remove(name: str) -> Call[api.Secret]:
    return _write("DELETE", f"/v1/secrets/{_part(name)}", api.Secret)


# Keys and projects


def keys() -> Call[api.Page[api.Key]]:
    return _get("/v1/keys", api.Page[api.Key])


def key_create(
    name: str,
    roles: Iterable[api.Role],
    *,
    project: str | None,
    scope: api.Scope,
    ttl_seconds: int | None,
) -> Call[api.KeyCreated]:
    body = _body(
        api.KeyCreate, name=name, roles=list(roles), project=project, scope=scope, ttl_seconds=ttl_seconds
    )
    return _write("POST", "/v1/keys", api.KeyCreated, body)


def key_revoke(key_id: str) -> Call[api.Key]:
    return _write("DELETE", f"/v1/keys/{_part(key_id)}", api.Key)


def trail() -> Call[api.Page[api.TrailEntry]]:
    return _get("/v1/trail", api.Page[api.TrailEntry])


def projects() -> Call[api.Page[api.Project]]:
    return _get("/v1/projects", api.Page[api.Project])


def project_create(name: str) -> Call[api.Project]:
    return _write("POST", "/v1/projects", api.Project, _body(api.ProjectCreate, name=name))
