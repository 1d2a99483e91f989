"""What all feeds over HTTP share: time limits, a size limit, and errors that say whether to wait."""

from __future__ import annotations

import email.utils
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from perak.domain.carbon.signal import SECONDS_PER_HOUR, hour_of
from perak.domain.errors import DomainError

if TYPE_CHECKING:
    import httpx

TIMEOUT_SECONDS = 10.0
"""A slow source is as good as none: the market doesn't wait for it, and cached hours go on."""
REPLY_BYTES_MAX = 8 * 2**20
"""A year of hours as JSON has about one MiB."""
RETRY_AFTER_SECONDS_MAX = 6 * 3600
"""Whatever a source asks for: a day of another's figures would be lost otherwise."""


class FeedError(DomainError):
    """A feed gave nothing that can be used; `retry_after` seconds, where it said when to come again."""

    code = "grid_feed"

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


async def get_json(
    url: str,
    *,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    auth: tuple[str, str] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Any:
    """The JSON at `url`. Raises FeedError for whatever else there is; secrets are in no message."""
    import httpx  # Here, as a start need not wait for it.

    async with httpx.AsyncClient(timeout=timeout_seconds, follow_redirects=False) as client:
        try:
            request = client.build_request("GET", url, params=params, headers=headers)
            reply = await client.send(request, auth=auth, stream=True)
            try:
                body = await _body(reply)
            finally:
                await reply.aclose()
        except httpx.TimeoutException:
            raise FeedError(f"no answer within {timeout_seconds:g} s") from None
        except httpx.HTTPError as error:
            raise FeedError(f"it can't be reached: {type(error).__name__}") from None
    if reply.status_code == 429:
        raise FeedError("it limits the rate (429)", retry_after=_retry_after(reply))
    if reply.status_code in (401, 403):
        raise FeedError(f"it refuses the key ({reply.status_code}); see the exchange's grid file")
    if reply.status_code != 200:
        raise FeedError(f"it answers {reply.status_code}", retry_after=_retry_after(reply))
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise FeedError("its answer is no JSON") from None


async def _body(reply: httpx.Response) -> bytes:
    body = b""
    async for part in reply.aiter_bytes():
        body += part
        if len(body) > REPLY_BYTES_MAX:
            raise FeedError(f"its answer is longer than {REPLY_BYTES_MAX:,} bytes")
    return body


def _retry_after(reply: httpx.Response) -> float | None:
    """Seconds, as said in seconds or as a date (RFC 9110)."""
    text = reply.headers.get("retry-after", "").strip()
    if text.isdigit():
        return min(float(text), RETRY_AFTER_SECONDS_MAX)
    try:
        at = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    seconds = (at - datetime.now(UTC)).total_seconds() if at.tzinfo else 0.0
    return min(max(0.0, seconds), RETRY_AFTER_SECONDS_MAX)


def time_of(text: object) -> datetime:
    """A time of ISO 8601 in UTC; without an offset it is taken as UTC. Raises FeedError."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        raise FeedError(f"{str(text)[:40]!r} is no time") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def by_hour(points: Iterable[tuple[datetime, float | None]]) -> tuple[int, tuple[float | None, ...]]:
    """(first hour, mean of each hour) of points in any order; an hour without any is None.

    Raises FeedError where there is no point at all.
    """
    hours: defaultdict[int, list[float]] = defaultdict(list)
    for at, value in points:
        if value is not None:
            hours[hour_of(at.timestamp())].append(value)
    if not hours:
        raise FeedError("it has no figure for this zone now")
    first, last = min(hours), max(hours)
    if last - first > 24 * 366:
        raise FeedError("its figures are more than a year apart")
    values = (hours.get(hour) for hour in range(first, last + 1))
    return first, tuple(None if not each else sum(each) / len(each) for each in values)


def number(value: object) -> float | None:
    """A figure of a reply; None where it says nothing. Raises FeedError for what is no number."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FeedError(f"{str(value)[:40]!r} is no intensity")
    return float(value)


def floor_hour(at: datetime) -> datetime:
    return datetime.fromtimestamp(hour_of(at.timestamp()) * SECONDS_PER_HOUR, tz=UTC)
