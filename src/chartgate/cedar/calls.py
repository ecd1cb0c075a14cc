"""Extension functions and methods, by name, with the types they take (Cedar "Operators").

The rules kept: 64-bit results are checked, never wrapped; ``toDate`` floors while ``toTime`` is
the rest of it; the ``to*`` of a duration truncate toward zero; a range test is containment.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from chartgate.cedar.errors import EvaluationError
from chartgate.cedar.extensions import CONSTRUCTORS, DAY, HOUR, MINUTE, SECOND
from chartgate.cedar.values import DateTime, Decimal, Duration, IpAddr, Value, is_i64


def checked(number: int) -> int:
    """The number, if a Long can hold it."""
    if not is_i64(number):
        raise EvaluationError("overflow", "the result does not fit 64 bits")
    return number


def _constructor(name: str) -> Callable[[str], Value]:
    parse = CONSTRUCTORS[name]

    def construct(text: str) -> Value:
        value = parse(text)
        if value is None:
            raise EvaluationError("extension", f"{name}() was given a text it does not accept")
        return value

    return construct


def _truncate(number: int, unit: int) -> int:
    return number // unit if number >= 0 else -(-number // unit)


def _to_unit(unit: int) -> Callable[[Duration], Value]:
    return lambda duration: _truncate(duration.ms, unit)


def _is_in_range(ip: IpAddr, within: IpAddr) -> bool:
    return ip.version == within.version and within.first <= ip.first and ip.last <= within.last


_LOOPBACK: Final = (IpAddr(4, 127 << 24, 8), IpAddr(6, 1, 128))
_MULTICAST: Final = (IpAddr(4, 224 << 24, 4), IpAddr(6, 0xFF << 120, 8))


def _is_within_any(ranges: Sequence[IpAddr]) -> Callable[[IpAddr], Value]:
    return lambda ip: any(_is_in_range(ip, block) for block in ranges)


# Name -> the types of the arguments and what to do with them.
_CALLS: Final[Mapping[str, tuple[tuple[type, ...], Callable[..., Value]]]] = MappingProxyType(
    {
        **{name: ((str,), _constructor(name)) for name in CONSTRUCTORS},
        "lessThan": ((Decimal, Decimal), lambda a, b: a.units < b.units),
        "lessThanOrEqual": ((Decimal, Decimal), lambda a, b: a.units <= b.units),
        "greaterThan": ((Decimal, Decimal), lambda a, b: a.units > b.units),
        "greaterThanOrEqual": ((Decimal, Decimal), lambda a, b: a.units >= b.units),
        "isIpv4": ((IpAddr,), lambda ip: ip.version == 4),
        "isIpv6": ((IpAddr,), lambda ip: ip.version == 6),
        "isLoopback": ((IpAddr,), _is_within_any(_LOOPBACK)),
        "isMulticast": ((IpAddr,), _is_within_any(_MULTICAST)),
        "isInRange": ((IpAddr, IpAddr), _is_in_range),
        "offset": ((DateTime, Duration), lambda t, d: DateTime(checked(t.ms + d.ms))),
        "durationSince": ((DateTime, DateTime), lambda a, b: Duration(checked(a.ms - b.ms))),
        "toDate": ((DateTime,), lambda t: DateTime(checked(t.ms // DAY * DAY))),
        "toTime": ((DateTime,), lambda t: Duration(t.ms % DAY)),
        "toMilliseconds": ((Duration,), _to_unit(1)),
        "toSeconds": ((Duration,), _to_unit(SECOND)),
        "toMinutes": ((Duration,), _to_unit(MINUTE)),
        "toHours": ((Duration,), _to_unit(HOUR)),
        "toDays": ((Duration,), _to_unit(DAY)),
    }
)


def call(fn: str, arguments: Sequence[Value]) -> Value:
    """The extension function or method ``fn`` applied to values."""
    if fn not in _CALLS:
        raise EvaluationError("extension", f"no extension function {fn}")
    types, function = _CALLS[fn]
    if len(arguments) != len(types):
        raise EvaluationError("arity", f"{fn} takes {len(types)} arguments")
    for argument, expected in zip(arguments, types, strict=True):
        if not isinstance(argument, expected):
            raise EvaluationError("type", f"{fn} was given an argument of the wrong type")
    passed: Sequence[Any] = arguments
    return function(*passed)
