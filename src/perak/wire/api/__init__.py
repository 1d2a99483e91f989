"""The versioned HTTP models, shared by the exchange and the client.

Money is a string of units in the currency of the exchange (``"0.0123"``), never a float; times are ISO 8601,
UTC; memory is bytes. Every list is a page with a cursor. Errors are `Problem` (RFC 9457).

Names load on first use: a command needs the models of one subject, and all of them take a tenth of a second.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perak.wire.api.access import (
        Key,
        KeyCreate,
        KeyCreated,
        Me,
        Project,
        ProjectCreate,
        SealedSecrets,
        Secret,
        TrailEntry,
    )
    from perak.wire.api.base import (
        BODY_BYTES_MAX,
        IDEMPOTENCY_KEY_MAX,
        PAGE_LIMIT_DEFAULT,
        PAGE_LIMIT_MAX,
        Digest,
        Model,
        Money,
        Name,
        Page,
        Problem,
        Request,
        Role,
        Scope,
    )
    from perak.wire.api.exchange import TRUST, Exchange
    from perak.wire.api.grid import CarbonReport, GridZone, GridZones
    from perak.wire.api.jobs import (
        BlobView,
        EndEvent,
        EventView,
        Job,
        JobDetail,
        JobSubmit,
        LogEvent,
        ReservationView,
        RunView,
        Tunnel,
        TunnelCreate,
    )
    from perak.wire.api.market import (
        AlternativeView,
        ComparisonView,
        DeviceView,
        HeldQuote,
        MisfitView,
        Offer,
        OfferChange,
        OfferQuote,
        PreferenceView,
        Quote,
        RelaxationView,
        WaitingView,
        Why,
    )
    from perak.wire.api.money import (
        DayEarnings,
        Earnings,
        EntryView,
        Funding,
        NodeEarnings,
        Receipt,
        ReceiptSummary,
        Wallet,
    )
    from perak.wire.api.nodes import (
        ChecklistView,
        CheckView,
        Enrolled,
        Enrolment,
        Invite,
        InviteCreate,
        Mode,
        Node,
        NodeChange,
        TemperatureView,
        TierView,
        WindowView,
    )
    from perak.wire.api.prices import Accuracy, PriceCell, Prices
    from perak.wire.api.webhooks import DeliveryView, Webhook, WebhookCreate, WebhookCreated, WebhookDetail

_NAMES = {
    "access": "Key KeyCreate KeyCreated Me Project ProjectCreate SealedSecrets Secret TrailEntry",
    "base": (
        "BODY_BYTES_MAX IDEMPOTENCY_KEY_MAX PAGE_LIMIT_DEFAULT PAGE_LIMIT_MAX Digest Model Money "
        "Name Page Problem Request Role Scope"
    ),
    "exchange": "TRUST Exchange",
    "grid": "CarbonReport GridZone GridZones",
    "jobs": (
        "BlobView EndEvent EventView Job JobDetail JobSubmit LogEvent ReservationView RunView "
        "Tunnel TunnelCreate"
    ),
    "market": (
        "AlternativeView ComparisonView DeviceView HeldQuote MisfitView Offer OfferChange "
        "OfferQuote PreferenceView Quote RelaxationView WaitingView Why"
    ),
    "money": "DayEarnings Earnings EntryView Funding NodeEarnings Receipt ReceiptSummary Wallet",
    "nodes": (
        "ChecklistView CheckView Enrolled Enrolment Invite InviteCreate Mode Node "
        "NodeChange TemperatureView TierView WindowView"
    ),
    "prices": "Accuracy PriceCell Prices",
    "webhooks": "DeliveryView Webhook WebhookCreate WebhookCreated WebhookDetail",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}
__all__ = [
    "BODY_BYTES_MAX",
    "IDEMPOTENCY_KEY_MAX",
    "PAGE_LIMIT_DEFAULT",
    "PAGE_LIMIT_MAX",
    "TRUST",
    "Accuracy",
    "AlternativeView",
    "BlobView",
    "CarbonReport",
    "CheckView",
    "ChecklistView",
    "ComparisonView",
    "DayEarnings",
    "DeliveryView",
    "DeviceView",
    "Digest",
    "Earnings",
    "EndEvent",
    "Enrolled",
    "Enrolment",
    "EntryView",
    "EventView",
    "Exchange",
    "Funding",
    "GridZone",
    "GridZones",
    "HeldQuote",
    "Invite",
    "InviteCreate",
    "Job",
    "JobDetail",
    "JobSubmit",
    "Key",
    "KeyCreate",
    "KeyCreated",
    "LogEvent",
    "Me",
    "MisfitView",
    "Mode",
    "Model",
    "Money",
    "Name",
    "Node",
    "NodeChange",
    "NodeEarnings",
    "Offer",
    "OfferChange",
    "OfferQuote",
    "Page",
    "PreferenceView",
    "PriceCell",
    "Prices",
    "Problem",
    "Project",
    "ProjectCreate",
    "Quote",
    "Receipt",
    "ReceiptSummary",
    "RelaxationView",
    "Request",
    "ReservationView",
    "Role",
    "RunView",
    "Scope",
    "SealedSecrets",
    "Secret",
    "TemperatureView",
    "TierView",
    "TrailEntry",
    "Tunnel",
    "TunnelCreate",
    "WaitingView",
    "Wallet",
    "Webhook",
    "WebhookCreate",
    "WebhookCreated",
    "WebhookDetail",
    "Why",
    "WindowView",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
