"""Cedar values as PostgreSQL literals, and the limits of what PostgreSQL can hold.

A value that no column can hold (a text with NUL, an instant before 4714 BC) equals none and is
beyond all: the condition is settled here instead of failing in a statement.
"""

from typing import Final

from chartgate.cedar.extensions import DAY, HOUR, MINUTE, SECOND
from chartgate.cedar.values import I64_MAX, I64_MIN, Decimal
from chartgate.datamap.read import literal

FIRST_INSTANT: Final = -210_866_803_200_000
"""Julian day 0, 4714-11-24 BC: the first instant of ``timestamptz`` (PostgreSQL, "Date/Time
Types"), in ms."""
AFTER_LAST_INSTANT: Final = 9_224_318_016_000_000
"""294277-01-01, the first instant beyond it."""

MANY_DAYS: Final = 10**12
"""More days than 64 bits of milliseconds hold: added, they make every number positive."""

_DAYS_OF_ERA: Final = 146_097
"""Days in 400 years: the Gregorian calendar repeats after them."""


def is_text(value: str) -> bool:
    """Whether a PostgreSQL text can hold the string: no NUL, no lone surrogate."""
    if "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_instant(ms: int) -> bool:
    """Whether a ``timestamptz`` can hold the instant."""
    return FIRST_INSTANT <= ms < AFTER_LAST_INSTANT


def long_sql(number: int) -> str:
    """A Long. In brackets: the smallest one is no literal of PostgreSQL's bigint, and ``- -1``
    would begin a comment without its space."""
    return f"({number:d})" if number < 0 else f"{number:d}"


def decimal_sql(value: Decimal) -> str:
    """A decimal as a numeric constant."""
    whole, fraction = divmod(abs(value.units), 10_000)
    text = f"{whole}.{fraction:04d}"
    return f"(-{text})" if value.units < 0 else text


LEAST_DECIMAL: Final = decimal_sql(Decimal(I64_MIN))
GREATEST_DECIMAL: Final = decimal_sql(Decimal(I64_MAX))


def instant_text(ms: int) -> str:
    """An instant in PostgreSQL's ISO form, which no DateStyle reads otherwise; any year."""
    days, rest = divmod(ms, DAY)
    year, month, day = _civil(days)
    clock = (
        f"{rest // HOUR:02d}:{rest % HOUR // MINUTE:02d}:{rest % MINUTE // SECOND:02d}"
        f".{rest % SECOND:03d}+00"
    )
    era = "" if year > 0 else " BC"
    return f"{year if year > 0 else 1 - year:04d}-{month:02d}-{day:02d} {clock}{era}"


def instant_sql(ms: int) -> str:
    """An instant as a constant of type timestamptz; only for what ``is_instant``."""
    return f"{literal(instant_text(ms))}::pg_catalog.timestamptz"


def date_sql(expression: str) -> str:
    """A date as the instant it begins in UTC, whatever the session's time zone; NULL for dates that
    no instant can be, which a plain cast would fail on."""
    return (
        f"CASE WHEN ({expression}) BETWEEN '4714-11-24 BC'::pg_catalog.date "
        f"AND '294276-12-31'::pg_catalog.date "
        f"THEN ({expression})::pg_catalog.timestamp AT TIME ZONE 'UTC' END"
    )


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of a day since 1970-01-01; year 0 is 1 BC. The inverse of
    ``extensions.days_from_civil``, with years that begin in March."""
    era, day_of_era = divmod(days + 719_468, _DAYS_OF_ERA)
    leap_days = day_of_era // 1460 - day_of_era // 36_524 + day_of_era // 146_096
    year_of_era = (day_of_era - leap_days) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    march_month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * march_month + 2) // 5 + 1
    month = march_month + 3 if march_month < 10 else march_month - 9
    return era * 400 + year_of_era + (month <= 2), month, day
