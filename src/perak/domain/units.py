"""Quantities as people write them, and money as integers.

Money is an integer count of micro-units of the exchange's one currency. Memory and disk are bytes
(``GB`` is 10^9, ``GiB`` is 2^30). CPU is milli-CPU: 1000 is one core. Times are seconds.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from perak.domain.errors import InvalidInput

MICROS = 1_000_000
"""Micro-units in one unit of the currency."""

SECONDS_PER_HOUR = 3600
BASIS_POINTS = 10_000
"""The exchange's fee is given in basis points: 100 are one percent."""

MONEY_MAX_MICROS = 10**15
"""A billion units: larger amounts are surely a mistake, and sums of them still fit 64 bits."""
BYTES_MAX = 2**60
"""An exbibyte: more than any machine has, and sums of them still fit 64 bits."""
DURATION_SECONDS_MAX = 366 * 86400
"""A year: no job runs longer."""
NUMBER_LENGTH_MAX = 40
"""Longer than any quantity that means something; arithmetic on such numbers is exact and quick."""
_EXPONENT_MAX = 30
"""``1e999999`` is a short text and a long number."""

_BYTE_UNITS = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_NUMBER_AND_UNIT = re.compile(rf"({_NUMBER})\s*([A-Za-z]*)")
_DURATION_PART = re.compile(rf"({_NUMBER})([smhd])\s*")
_DURATION = re.compile(rf"(?:{_NUMBER}[smhd]\s*)+")


def parse_bytes(text: str | int) -> int:
    """Bytes of ``16GB``, ``512MiB`` or a plain number, rounded down. Raises InvalidInput."""
    match = _NUMBER_AND_UNIT.fullmatch(str(text).strip())
    number = _number(match[1]) if match else None
    if match is None or number is None or match[2].upper() not in _BYTE_UNITS:
        raise InvalidInput(f"{text!r} is not an amount of memory; write it like 16GB or 512MiB")
    size = int(number * _BYTE_UNITS[match[2].upper()])
    if size > BYTES_MAX:
        raise InvalidInput(f"{text!r} is more memory than any machine has; the most is 1048576TiB")
    return size


def parse_duration(text: str | int | float) -> int:
    """Seconds of ``90s``, ``5m``, ``2h``, ``1h30m``, ``1d`` or a plain number. Raises InvalidInput."""
    stripped = str(text).strip().lower()
    seconds = _number(stripped)
    if seconds is None and len(stripped) <= NUMBER_LENGTH_MAX and _DURATION.fullmatch(stripped):
        parts = _DURATION_PART.findall(stripped)
        seconds = sum((Fraction(number) * _DURATION_UNITS[unit] for number, unit in parts), Fraction(0))
    if seconds is None:
        raise InvalidInput(f"{text!r} is not a duration; write it like 90s, 5m, 2h or 1h30m")
    if seconds.denominator != 1 or not 0 <= seconds <= DURATION_SECONDS_MAX:
        raise InvalidInput(f"{text!r} is not a duration of whole seconds up to a year")
    return int(seconds)


def parse_money(text: str | int | float) -> int:
    """Micro-units of ``5.00``. More than six decimals, or a negative amount, raises InvalidInput."""
    number = _number(text)
    if number is None:
        raise InvalidInput(f"{text!r} is not an amount of money; write it like 5.00")
    micros = number * MICROS
    if micros.denominator != 1 or not 0 <= micros <= MONEY_MAX_MICROS:
        raise InvalidInput(f"{text!r} is not an amount of money between 0 and 1e9 with up to six decimals")
    return int(micros)


def parse_price(text: str | int | float) -> int:
    """Micro-units per device-hour of ``0.40/h`` or ``0.40``."""
    stripped = str(text).strip()
    return parse_money(stripped[:-2] if stripped.endswith("/h") else stripped)


def parse_cpu(text: str | int | float) -> int:
    """Milli-CPU of ``4``, ``0.5`` or ``250m``."""
    stripped = str(text).strip()
    number = _number(stripped.removesuffix("m"))
    if number is None:
        raise InvalidInput(f"{text!r} is not a number of CPUs; write it like 4, 0.5 or 250m")
    milli = number if stripped.endswith("m") else number * 1000
    if milli.denominator != 1 or not 0 < milli <= 10**7:
        raise InvalidInput(f"{text!r} is not a number of CPUs between 1m and 10000")
    return int(milli)


def _number(text: object) -> Fraction | None:
    """The exact value of `text`; None where it is not a number, or too long to be meant."""
    stripped = str(text).strip()
    if len(stripped) > NUMBER_LENGTH_MAX:
        return None
    try:
        number = Decimal(stripped)
    except InvalidOperation:
        return None
    if not number.is_finite() or abs(number.adjusted()) > _EXPONENT_MAX:
        return None
    return Fraction(number)


def at_least(text: str | int | float) -> str | int | float:
    """Take the open range ``16GB..`` as its lower bound; a plain value means the same."""
    if isinstance(text, str) and text.strip().endswith(".."):
        return text.strip()[:-2].strip()
    if isinstance(text, str) and ".." in text:
        raise InvalidInput(f"{text!r}: only an open range like 16GB.. is understood")
    return text


def format_money(micros: int, currency: str = "") -> str:
    """``0.0123`` with at least two decimals and no needless zeros, e.g. ``5.00 USD``."""
    sign = "-" if micros < 0 else ""
    whole, fraction = divmod(abs(micros), MICROS)
    decimals = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}" + (f" {currency}" if currency else "")


def format_bytes(size: int) -> str:
    """``16.0 GB``: decimal units, one decimal."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < (1000 if unit == "B" else 999.95):
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def format_duration(seconds: float) -> str:
    """``850 ms``, ``12.3 s``, ``4m 05s`` or ``2h 05m``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m"


def charge(*, price_per_device_hour: int, devices_milli: int, seconds: int) -> int:
    """Micro-units for `seconds` on `devices_milli` thousandths of a device, rounded half up, once.

    A GPU lease counts whole GPUs (1000 each); a CPU lease counts milli-CPU, a CPU device being one core.
    """
    assert price_per_device_hour >= 0
    assert devices_milli > 0
    assert seconds >= 0
    divisor = 1000 * SECONDS_PER_HOUR
    return (2 * price_per_device_hour * devices_milli * seconds + divisor) // (2 * divisor)


def split_charge(cost: int, *, fee_basis_points: int) -> tuple[int, int]:
    """(payout to the provider, fee of the exchange); they sum to `cost`, the remainder is the provider's."""
    assert cost >= 0
    assert 0 <= fee_basis_points <= BASIS_POINTS
    fee = cost * fee_basis_points // BASIS_POINTS
    return cost - fee, fee


def billed_seconds(started_at_ms: int, until_ms: int) -> int:
    """Whole seconds to bill: every second begun counts, as is usual for per-second billing."""
    return max(0, -(-(until_ms - started_at_ms) // 1000))
