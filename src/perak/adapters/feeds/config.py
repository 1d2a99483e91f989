"""The operator's grid file: which zone uses which feed, where the exchange's probes are, who is where.

::

    refresh: 15m
    place: {latitude: 52.52, longitude: 13.40}
    zones:
      GB: {feed: gb}
      DE: {feed: entsoe, zone: DE_LU, token: $ENTSOE_TOKEN}
      US-CA: {feed: file, path: ca.csv, zone: US-CAL-CISO}
    marginal:
      US-CA: {feed: watttime, zone: CAISO_NORTH, user: me, password: $WATTTIME_PASSWORD}
    addresses: {192.0.2.0/24: DE}
    attested: {node-01k9...: DE}

A value that begins with a dollar is taken from that environment variable: no key need stand in the file.
Feeds of other packages are found by the entry point `perak.grid_feeds`: a function of the zone's settings.
"""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

from perak.adapters.feeds.electricitymaps import ElectricityMapsFeed
from perak.adapters.feeds.entsoe import EntsoeFeed
from perak.adapters.feeds.file import FileFeed
from perak.adapters.feeds.gb import GbFeed
from perak.adapters.feeds.gridstatus import GridstatusFeed
from perak.adapters.feeds.watttime import WattTimeFeed
from perak.app.grid import REFRESH_SECONDS, ZoneFeed
from perak.app.ports import GridFeed
from perak.domain.errors import InvalidInput
from perak.domain.regions import normal_region
from perak.domain.units import parse_duration

ENTRY_POINT = "perak.grid_feeds"
FILE_BYTES_MAX = 2**20
ZONES_MAX = 500
"""More than there are zones on the maps of any source."""
REFRESH_SECONDS_LEAST = 60

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Settings = dict[str, str]
Make = Callable[[Settings], GridFeed]


@dataclass(frozen=True, slots=True, kw_only=True)
class GridFile:
    """What the file says; without one every zone has its year's average, and regions stay claims.

    `place`: (latitude, longitude) of the exchange in degrees. `attested`: regions by nodes' ids.
    """

    feeds: tuple[ZoneFeed, ...] = ()
    refresh_seconds: float = REFRESH_SECONDS
    place: tuple[float, float] | None = None
    addresses: tuple[tuple[Network, str], ...] = ()
    attested: Mapping[str, str] | None = None


def read_grid_file(path: Path) -> GridFile:
    """Raises InvalidInput, which names the file and what is wrong in it."""
    try:
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise InvalidInput(f"it is larger than {FILE_BYTES_MAX:,} bytes")
        tree = yaml.safe_load(data) or {}
        return parse_grid_file(tree, folder=path.parent)
    except OSError as error:
        raise InvalidInput(f"the grid file {path} can't be read: {error.strerror}") from None
    except (yaml.YAMLError, InvalidInput) as error:
        raise InvalidInput(f"the grid file {path}: {error}") from None


def parse_grid_file(tree: object, *, folder: Path) -> GridFile:
    """The same of a parsed tree; paths in it are relative to `folder`."""
    known = ("refresh", "place", "zones", "marginal", "addresses", "attested")
    found = _mapping(tree, "the file")
    if unknown := sorted(set(found) - set(known)):
        raise InvalidInput(f"there is no key {unknown[0]!r}; known are {', '.join(known)}")
    zones = [
        _zone(name, each, folder=folder, marginal=marginal)
        for marginal, block in ((False, "zones"), (True, "marginal"))
        for name, each in _mapping(found.get(block) or {}, block).items()
    ]
    if len(zones) > ZONES_MAX:
        raise InvalidInput(f"{len(zones)} zones are too many; at most {ZONES_MAX}")
    refresh = parse_duration(str(found["refresh"])) if "refresh" in found else REFRESH_SECONDS
    if refresh < REFRESH_SECONDS_LEAST:
        raise InvalidInput(f"refresh is {refresh:g} s; no source wants to be asked more than once a minute")
    return GridFile(
        feeds=tuple(zones),
        refresh_seconds=float(refresh),
        place=_place(found["place"]) if "place" in found else None,
        addresses=tuple(
            (_network(net), _region(region))
            for net, region in _mapping(found.get("addresses") or {}, "addresses").items()
        ),
        attested={
            node: _region(region)
            for node, region in _mapping(found.get("attested") or {}, "attested").items()
        },
    )


def _zone(name: str, settings: object, *, folder: Path, marginal: bool) -> ZoneFeed:
    told = {key: _value(each, key) for key, each in _mapping(settings, name).items()}
    kind = told.pop("feed", "")
    zone = told.pop("zone", name)
    if "path" in told:
        told["path"] = str(folder / told["path"])
    make = _makers().get(kind)
    if make is None:
        raise InvalidInput(f"{name}: {kind[:40]!r} is no feed; they are {', '.join(sorted(_makers()))}")
    try:
        feed = make(told)
    except KeyError as error:
        raise InvalidInput(f"{name}: the feed {kind} needs {error.args[0]!r}") from None
    if told:
        raise InvalidInput(f"{name}: the feed {kind} knows no {sorted(told)[0]!r}")
    if marginal != (kind in MARGINAL):
        right = "marginal" if kind in MARGINAL else "zones"
        raise InvalidInput(f"{name}: the feed {kind} belongs under {right!r}; the two signals are not mixed")
    return ZoneFeed(region=_region(name), feed=feed, zone=zone, marginal=marginal)


MARGINAL = frozenset({"watttime"})
"""Feeds of the marginal signal."""


def _gb(told: Settings) -> GridFeed:
    return GbFeed(**_url(told))


def _file(told: Settings) -> GridFeed:
    return FileFeed(
        path=Path(told.pop("path")),
        source=told.pop("source", ""),
        factor=told.pop("factor", "life cycle"),
    )


def _electricitymaps(told: Settings) -> GridFeed:
    with_forecast = told.pop("forecast", "false").lower() == "true"
    return ElectricityMapsFeed(token=told.pop("token"), forecast=with_forecast, **_url(told))


def _watttime(told: Settings) -> GridFeed:
    return WattTimeFeed(user=told.pop("user"), password=told.pop("password"), **_url(told))


def _entsoe(told: Settings) -> GridFeed:
    return EntsoeFeed(token=told.pop("token"))


def _gridstatus(told: Settings) -> GridFeed:
    return GridstatusFeed()


_OURS: dict[str, Make] = {
    "gb": _gb,
    "file": _file,
    "electricitymaps": _electricitymaps,
    "watttime": _watttime,
    "entsoe": _entsoe,
    "gridstatus": _gridstatus,
}


def _makers() -> dict[str, Make]:
    """Ours, and those that other packages bring."""
    return {**{each.name: each.load() for each in entry_points(group=ENTRY_POINT)}, **_OURS}


def _url(told: Settings) -> dict[str, Any]:
    """Another address of the same API: a mirror, or a cache of the operator's."""
    return {"url": told.pop("url").rstrip("/")} if "url" in told else {}


def _mapping(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{what} must be a block of keys")
    return {str(key): each for key, each in value.items()}


def _value(value: object, key: str) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if not text.startswith("$"):
        return text
    found = os.environ.get(text[1:])
    if found is None:
        raise InvalidInput(f"{key} is {text}, and there is no such environment variable")
    return found


def _region(text: object) -> str:
    word = normal_region(str(text))
    if not word or len(word) > 32 or not word.replace("-", "").isalnum():
        raise InvalidInput(f"{str(text)[:40]!r} is no region; write it like DE or US-CA")
    return word


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise InvalidInput(f"{text[:60]!r} is no network; write it like 192.0.2.0/24") from None


def _place(value: object) -> tuple[float, float]:
    told = _mapping(value, "place")
    try:
        latitude, longitude = float(told["latitude"]), float(told["longitude"])
    except (KeyError, TypeError, ValueError):
        raise InvalidInput("place needs latitude and longitude in degrees") from None
    if not (math.isfinite(latitude + longitude) and abs(latitude) <= 90 and abs(longitude) <= 180):
        raise InvalidInput("place: latitude is from -90 to 90, longitude from -180 to 180")
    return latitude, longitude
