"""The provider's file: what of this machine is offered, when, and at what price.

::

    name: workshop                                # default: the machine's host name
    region: DE                                    # default: WORLD
    prices: {gpu: 0.20/h, cpu: 0.02/h}            # per device-hour; what has no price is not offered
    hours: ["Mon-Fri 18:00-08:00", "Sat-Sun"]     # in UTC; default: always
    reserve: {cpu: 1, memory: 1GiB, disk: 5GB}    # kept for the machine itself
    cache: {images: 40GB, inputs: 20GB}           # disk for what jobs bring along; 0: none are taken
    private_hosts: ["registry.lan:5000"]          # of your own network; images and inputs may come from there
    s3: {endpoint: https://s3.example.org, region: eu-1}   # where s3:// inputs are read; default: Amazon's
    forbid: [network]                             # what no job gets here; default: nothing
    min_duration: 30m                             # jobs that may not run as long are not taken; default: any
    available_until: 2027-03-31T18:00Z            # every lease ends by then; default: no end
    reclaim_notice: 24h                           # how long before an end renters are told; default: none
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

import yaml

from perak.domain.errors import InvalidInput
from perak.domain.offer import GRANTS, Hours
from perak.domain.units import parse_bytes, parse_cpu, parse_duration, parse_price

_T = TypeVar("_T")

FILE_BYTES_MAX = 64 * 1024
"""A provider file has ten lines."""
HOURS_MAX = 50
HOSTS_MAX = 100
"""Of the provider's own network; more would be the network."""
MORE_KEYS = ("cache", "private_hosts", "s3", "min_duration", "available_until", "reclaim_notice")

_REGION = re.compile(r"[A-Z][A-Z0-9-]{1,15}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])")


class ProviderFileError(InvalidInput):
    """The provider's file can't be used; the message names file, line and key."""

    code = "invalid_provider_file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What the provider wants. Prices are micro-units per device-hour; None: not offered."""

    name: str | None = None
    region: str = "WORLD"
    price_gpu: int | None = None
    price_cpu: int | None = None
    hours: tuple[Hours, ...] = ()
    reserve_cpu_milli: int = 0
    reserve_memory_bytes: int = 2**30
    """What a small Linux and the agent need to stay alive beside full leases."""
    reserve_disk_bytes: int = 5 * 10**9
    """A full system disk takes the machine down with it."""
    cache_images_bytes: int | None = None
    """None: by the room that there is. 0: no images."""
    cache_inputs_bytes: int | None = None
    private_hosts: tuple[str, ...] = ()
    s3_endpoint: str | None = None
    s3_region: str | None = None
    forbid: tuple[str, ...] = ()
    """Of `perak.domain.offer.GRANTS`."""
    min_duration_seconds: int = 0
    available_until_ms: int | None = None
    reclaim_notice_seconds: int = 0


def granted(provider: Provider) -> tuple[str, ...]:
    """What jobs may have on this machine."""
    return tuple(each for each in GRANTS if each not in provider.forbid)


def read(path: Path) -> Provider:
    """The provider file at `path`. Raises ProviderFileError."""
    try:
        text = path.read_bytes()[: FILE_BYTES_MAX + 1]
    except OSError as error:
        raise ProviderFileError(f"{path} can't be read: {error.strerror}") from None
    if len(text) > FILE_BYTES_MAX:
        raise ProviderFileError(f"{path} is larger than {FILE_BYTES_MAX:,} bytes; is it the right file?")
    return parse(text, name=str(path))


def parse(text: str | bytes, *, name: str) -> Provider:
    """The provider file with this text. Raises ProviderFileError; `name` stands in its message."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ProviderFileError(f"{name} is not valid YAML: {error}") from None
    if root is None:
        return Provider()
    file = _File(name)
    found = file.mapping(root, "", {"name", "region", "prices", "hours", "reserve", "forbid", *MORE_KEYS})
    prices = file.mapping(found.get("prices"), "prices.", {"gpu", "cpu"})
    reserve = file.mapping(found.get("reserve"), "reserve.", {"cpu", "memory", "disk"})
    cache = file.mapping(found.get("cache"), "cache.", {"images", "inputs"})
    s3 = file.mapping(found.get("s3"), "s3.", {"endpoint", "region"})
    default = Provider()
    return Provider(
        name=file.value(found, "name", _name, None),
        region=file.value(found, "region", region, default.region),
        price_gpu=file.value(prices, "gpu", parse_price, None, "prices."),
        price_cpu=file.value(prices, "cpu", parse_price, None, "prices."),
        hours=file.hours(found.get("hours")),
        reserve_cpu_milli=file.value(reserve, "cpu", _reserved_cpu, default.reserve_cpu_milli, "reserve."),
        reserve_memory_bytes=file.value(
            reserve, "memory", parse_bytes, default.reserve_memory_bytes, "reserve."
        ),
        reserve_disk_bytes=file.value(reserve, "disk", parse_bytes, default.reserve_disk_bytes, "reserve."),
        cache_images_bytes=file.value(cache, "images", _cache_bytes, None, "cache."),
        cache_inputs_bytes=file.value(cache, "inputs", _cache_bytes, None, "cache."),
        private_hosts=file.texts(found.get("private_hosts"), "private_hosts", _private_host),
        s3_endpoint=file.value(s3, "endpoint", _endpoint, None, "s3."),
        s3_region=file.value(s3, "region", _s3_region, None, "s3."),
        forbid=file.words(found.get("forbid"), "forbid", GRANTS),
        min_duration_seconds=file.value(found, "min_duration", parse_duration, 0),
        available_until_ms=file.value(found, "available_until", moment, None),
        reclaim_notice_seconds=file.value(found, "reclaim_notice", parse_duration, 0),
    )


def region(text: str) -> str:
    """A region such as ``DE``, ``US-CA`` or ``WORLD``. Raises InvalidInput."""
    word = text.strip().upper()
    if not _REGION.fullmatch(word):
        raise InvalidInput(f"{text!r} is not a region; write a country's two letters, like DE, or WORLD")
    return word


def moment(text: str) -> int:
    """Unix milliseconds of ``2027-03-31T18:00Z`` or ``2027-03-31``, in UTC. Raises InvalidInput."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidInput(f"{text[:40]!r} is not a moment; write it like 2027-03-31T18:00Z") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return int(at.timestamp() * 1000)


def parse_hours(text: str) -> Hours:
    """``Mon-Fri 18:00-08:00``, ``Sat-Sun`` (all day) or ``22:00-06:00``, in UTC. Raises InvalidInput."""
    words = text.split()
    days, times = "mon-sun", "00:00-24:00"
    match words:
        case [one]:
            days, times = (days, one) if one[0].isdigit() else (one, times)
        case [days, times]:
            pass
        case _:
            raise InvalidInput(_hours_hint(text))
    first, dash, last = times.partition("-")
    if not dash:
        raise InvalidInput(_hours_hint(text))
    start, end = _minute(first, text), _minute(last, text)
    if start == 1440 or start == end:
        raise InvalidInput(_hours_hint(text))
    return Hours(start_minute=start, end_minute=end, weekdays=_weekdays(days, text))


@dataclass(frozen=True, slots=True)
class _File:
    """Reads nodes of one YAML document; its errors say where."""

    name: str

    def mapping(self, node: yaml.Node | None, prefix: str, keys: set[str]) -> dict[str, yaml.Node]:
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise self.error(node, prefix.rstrip("."), f"here belong {', '.join(sorted(keys))}")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            word = str(key.value)
            if word not in keys:
                near = get_close_matches(word, keys, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(keys))}"
                raise self.error(key, prefix + word, f"there is no such key; {hint}")
            if word in found:
                raise self.error(key, prefix + word, "this key comes twice")
            found[word] = value
        return found

    def value(
        self,
        found: Mapping[str, yaml.Node],
        key: str,
        parse: Callable[[str], _T],
        default: _T,
        prefix: str = "",
    ) -> _T:
        node = found.get(key)
        if node is None:
            return default
        if not isinstance(node, yaml.ScalarNode):
            raise self.error(node, prefix + key, "here belongs one value")
        try:
            return parse(node.value)
        except InvalidInput as error:
            raise self.error(node, prefix + key, error.detail) from None

    def hours(self, node: yaml.Node | None) -> tuple[Hours, ...]:
        if node is None:
            return ()
        if not isinstance(node, yaml.SequenceNode) or len(node.value) > HOURS_MAX:
            raise self.error(node, "hours", 'here belongs a list like ["Mon-Fri 18:00-08:00", "Sat-Sun"]')
        return tuple(self.value({"hours": each}, "hours", parse_hours, None) for each in node.value)  # type: ignore[misc]

    def texts(self, node: yaml.Node | None, key: str, parse: Callable[[str], str]) -> tuple[str, ...]:
        if node is None:
            return ()
        if not isinstance(node, yaml.SequenceNode) or len(node.value) > HOSTS_MAX:
            raise self.error(node, key, "here belongs a list of at most a hundred")
        return tuple(self.value({key: each}, key, parse, "") for each in node.value)

    def words(self, node: yaml.Node | None, key: str, known: tuple[str, ...]) -> tuple[str, ...]:
        if node is None:
            return ()
        each = node.value if isinstance(node, yaml.SequenceNode) else [node]
        words = tuple(str(word.value) for word in each)
        if not set(words) <= set(known):
            raise self.error(node, key, f"here belong some of {', '.join(known)}")
        return words

    def error(self, node: yaml.Node, key: str, why: str) -> ProviderFileError:
        return ProviderFileError(f"{self.name}, line {node.start_mark.line + 1}, {key or 'the file'}: {why}")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise InvalidInput(f"{text!r} can't name a node: up to 63 letters, digits, dots, dashes")
    return text


def _reserved_cpu(text: str) -> int:
    return 0 if text.strip() in ("0", "0m") else parse_cpu(text)


def _cache_bytes(text: str) -> int:
    return 0 if text.strip() == "0" else parse_bytes(text)


def _private_host(text: str) -> str:
    if not _HOST.fullmatch(text.lower()):
        raise InvalidInput(f"{text[:60]!r} is no host; write it like registry.lan:5000 or 192.168.1.10")
    return text.lower()


def _endpoint(text: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]_-]+/?", text):
        raise InvalidInput(f"{text[:60]!r} is no endpoint; write it like https://s3.example.org")
    return text.rstrip("/")


def _s3_region(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]{1,40}", text):
        raise InvalidInput(f"{text[:60]!r} is no region of S3; write it like eu-central-1")
    return text


def _minute(text: str, whole: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None or (match[1] == "24" and match[2] != "00"):
        raise InvalidInput(_hours_hint(whole))
    return int(match[1]) * 60 + int(match[2])


def _weekdays(text: str, whole: str) -> tuple[int, ...]:
    days: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = part.partition("-")
        if first not in _DAYS or (dash and last not in _DAYS):
            raise InvalidInput(_hours_hint(whole))
        start, end = _DAYS.index(first), _DAYS.index(last if dash else first)
        days |= {(start + step) % 7 + 1 for step in range((end - start) % 7 + 1)}
    return tuple(sorted(days))


def _hours_hint(text: str) -> str:
    return (
        f"{text!r} is not a time of the week (UTC); write it like Mon-Fri 18:00-08:00, Sat-Sun or 22:00-06:00"
    )
