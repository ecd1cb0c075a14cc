"""Strings of the extension types, read strictly (Cedar "decimal", "ipaddr", "datetime").

One reading per text and no leniency of Python's: digits are ASCII ``[0-9]``, the end is ``\\Z``,
and year 0000, which ``datetime`` does not know, is a year. Every function returns None for a text
that is not of its type, so that the evaluator and the loader can each name the failure their way.
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from types import MappingProxyType
from typing import Final

from chartgate.cedar.values import DateTime, Decimal, Duration, IpAddr, is_i64

_DECIMAL: Final = re.compile(r"(-?)([0-9]+)\.([0-9]{1,4})\Z")
_PREFIX: Final = re.compile(r"(?:0|[1-9][0-9]{0,2})\Z")
_DATETIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{3}))?(?:Z|([+-])([0-9]{2})([0-9]{2})))?\Z"
)
_DURATION: Final = re.compile(
    r"(-?)(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m(?!s))?(?:([0-9]+)s)?(?:([0-9]+)ms)?\Z"
)
# The longest IPv6 text with a prefix: 39 characters, a slash, three digits.
_IP_LONGEST: Final = 43
# The digits of 2^63: a longer number is out of range, whatever its unit.
_DIGITS: Final = 19

SECOND: Final = 1000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR


def _number(digits: str | None) -> int:
    """The number; beyond 64 bits any number that is itself beyond (int() refuses the longest)."""
    significant = (digits or "").lstrip("0")
    return int(significant or "0") if len(significant) <= _DIGITS else 1 << 64


def parse_decimal(text: str) -> Decimal | None:
    """``-?digits.digits`` with one to four fraction digits, within 64 bits of 10^-4."""
    found = _DECIMAL.match(text)
    if found is None:
        return None
    sign, whole, fraction = found.groups()
    units = _number(whole) * 10_000 + int(fraction.ljust(4, "0"))
    units = -units if sign else units
    return Decimal(units) if is_i64(units) else None


def parse_ip(text: str) -> IpAddr | None:
    """An IPv4 or IPv6 address, or a range ``address/prefix``; IPv4 inside IPv6 is refused."""
    if len(text.encode("utf-8", "surrogatepass")) > _IP_LONGEST or "%" in text:
        return None
    address, slash, prefix = text.partition("/")
    if ":" in address and "." in address:
        return None
    parsed: IPv4Address | IPv6Address
    try:
        parsed = IPv6Address(address) if ":" in address else IPv4Address(address)
    except AddressValueError:
        return None
    bits = parsed.max_prefixlen
    if not slash:
        return IpAddr(parsed.version, int(parsed), bits)
    if _PREFIX.match(prefix) is None or int(prefix) > bits:
        return None
    return IpAddr(parsed.version, int(parsed), int(prefix))


def days_from_civil(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the proleptic Gregorian calendar, for any year."""
    # A year that begins in March puts the leap day last, and the month lengths on a straight line.
    march_year = year - (month <= 2)
    month_index = (month + 9) % 12
    day_of_year = (153 * month_index + 2) // 5 + day - 1
    leap_days = march_year // 4 - march_year // 100 + march_year // 400
    return march_year * 365 + leap_days + day_of_year - 719_468


def _month_length(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def parse_datetime(text: str) -> DateTime | None:
    """The five forms: a date; a date and time with ``Z`` or ``±hhmm``, with or without ``.SSS``."""
    found = _DATETIME.match(text)
    if found is None:
        return None
    year, month, day = (int(part) for part in found.group(1, 2, 3))
    if not 1 <= month <= 12 or not 1 <= day <= _month_length(year, month):
        return None
    ms = days_from_civil(year, month, day) * DAY
    if found.group(4) is None:
        return DateTime(ms)
    hour, minute, second = (int(part) for part in found.group(4, 5, 6))
    east_hour, east_minute = int(found.group(9) or 0), int(found.group(10) or 0)
    if hour > 23 or minute > 59 or second > 59 or east_hour > 23 or east_minute > 59:
        return None
    east = (east_hour * HOUR + east_minute * MINUTE) * (-1 if found.group(8) == "-" else 1)
    ms += hour * HOUR + minute * MINUTE + second * SECOND + int(found.group(7) or 0)
    return DateTime(ms - east)


def parse_duration(text: str) -> Duration | None:
    """``-?`` and then days, hours, minutes, seconds, milliseconds in this order, at least one."""
    found = _DURATION.match(text)
    if found is None or not any(found.groups()[1:]):
        return None
    units = (DAY, HOUR, MINUTE, SECOND, 1)
    parts = found.groups()[1:]
    ms = sum(_number(part) * unit for part, unit in zip(parts, units, strict=True))
    ms = -ms if found.group(1) else ms
    return Duration(ms) if is_i64(ms) else None


Extension = Decimal | IpAddr | DateTime | Duration

# The constructor functions of the language: the only ones that take a string.
CONSTRUCTORS: Final[Mapping[str, Callable[[str], Extension | None]]] = MappingProxyType(
    {
        "decimal": parse_decimal,
        "ip": parse_ip,
        "datetime": parse_datetime,
        "duration": parse_duration,
    }
)
