"""Extension functions on values of which only the type is known (Cedar "Operators").

The rules kept are those of ``chartgate.cedar.calls``: results are checked against 64 bits,
``toDate`` floors while ``toTime`` is the rest of it, the ``to*`` of a duration truncate toward
zero, a range test is containment.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import z3

from chartgate.cedar.calls import call as evaluate_call
from chartgate.cedar.errors import EvaluationError
from chartgate.cedar.extensions import CONSTRUCTORS, DAY, HOUR, MINUTE, SECOND
from chartgate.cedar.values import I64_MAX, I64_MIN, DateTime, Decimal, Duration, IpAddr
from chartgate.targets.smt.logic import Number, Truth, all_of, any_of, less, negated
from chartgate.targets.smt.symbols import (
    Symbol,
    SymBool,
    SymIp,
    SymLong,
    SymMeasure,
    SymString,
    Unencodable,
)

_BITS: Final = 128


def call(fn: str, arguments: Sequence[Symbol]) -> tuple[Symbol, Truth]:
    """The result of an extension function, and when it has none."""
    if fn in CONSTRUCTORS:
        return _constructed(fn, arguments[0])
    if fn in _COMPARISONS and len(arguments) == 2:
        return SymBool(_COMPARISONS[fn](_number(arguments[0]), _number(arguments[1]))), False
    if fn in _UNITS:
        return SymLong(_truncated(_number(arguments[0]), _UNITS[fn])), False
    match fn:
        case "offset":
            return _measure("datetime", _number(arguments[0]) + _number(arguments[1]))
        case "durationSince":
            return _measure("duration", _number(arguments[0]) - _number(arguments[1]))
        case "toDate":
            ms = _number(arguments[0])
            # Both Python and the solver round the quotient down for a positive divisor.
            days = ms // DAY if isinstance(ms, int) else ms / DAY
            return _measure("datetime", days * DAY)
        case "toTime":
            return SymMeasure("duration", _number(arguments[0]) % DAY), False
        case "isIpv4":
            return SymBool(negated(_ip(arguments[0]).is_v6)), False
        case "isIpv6":
            return SymBool(_ip(arguments[0]).is_v6), False
        case "isLoopback":
            return SymBool(_within_any(_ip(arguments[0]), _LOOPBACK)), False
        case "isMulticast":
            return SymBool(_within_any(_ip(arguments[0]), _MULTICAST)), False
        case "isInRange":
            return SymBool(_within(_ip(arguments[0]), _ip(arguments[1]))), False
    raise Unencodable(f"the function {fn}")


def known_ip(value: IpAddr) -> SymIp:
    """An address that is written down."""
    return SymIp(
        value.version == 6,
        z3.BitVecVal(value.address, _BITS),
        z3.BitVecVal(value.bits - value.prefix, _BITS),
    )


def _constructed(fn: str, argument: Symbol) -> tuple[Symbol, Truth]:
    if not isinstance(argument, SymString) or not isinstance(argument.term, str):
        raise Unencodable(f"{fn}() of a text that is not written in the policy")
    try:
        value = evaluate_call(fn, [argument.term])
    except EvaluationError:
        return SymBool(False), True
    match value:
        case Decimal(units):
            return SymMeasure("decimal", units), False
        case DateTime(ms):
            return SymMeasure("datetime", ms), False
        case Duration(ms):
            return SymMeasure("duration", ms), False
        case IpAddr():
            return known_ip(value), False
    raise Unencodable(f"the function {fn}")


_COMPARISONS: Final[Mapping[str, Callable[[Number, Number], Truth]]] = {
    "lessThan": less,
    "lessThanOrEqual": lambda a, b: negated(less(b, a)),
    "greaterThan": lambda a, b: less(b, a),
    "greaterThanOrEqual": lambda a, b: negated(less(a, b)),
}
_UNITS: Final = {
    "toMilliseconds": 1,
    "toSeconds": SECOND,
    "toMinutes": MINUTE,
    "toHours": HOUR,
    "toDays": DAY,
}
_LOOPBACK: Final = (IpAddr(4, 127 << 24, 8), IpAddr(6, 1, 128))
_MULTICAST: Final = (IpAddr(4, 224 << 24, 4), IpAddr(6, 0xFF << 120, 8))


def _measure(kind: str, number: Number) -> tuple[Symbol, Truth]:
    if isinstance(number, int):
        return SymMeasure(kind, number), not I64_MIN <= number <= I64_MAX
    beyond: z3.BoolRef = z3.Or(number < I64_MIN, number > I64_MAX)
    return SymMeasure(kind, number), beyond


def _truncated(number: Number, unit: int) -> Number:
    if isinstance(number, int):
        return number // unit if number >= 0 else -(-number // unit)
    found: z3.ArithRef = z3.If(number >= 0, number / unit, -((-number) / unit))
    return found


def _within(inner: SymIp, outer: SymIp) -> Truth:
    """The same version, and no address of ``inner`` outside ``outer``."""
    same = z3.simplify(_version(inner) == _version(outer))
    first_inner, last_inner = _range(inner)
    first_outer, last_outer = _range(outer)
    inside = z3.And(z3.ULE(first_outer, first_inner), z3.ULE(last_inner, last_outer))
    return all_of(_known(z3.simplify(part)) for part in (same, inside))


def _within_any(ip: SymIp, ranges: tuple[IpAddr, ...]) -> Truth:
    return any_of(_within(ip, known_ip(block)) for block in ranges)


def _version(ip: SymIp) -> z3.BoolRef:
    return z3.BoolVal(ip.is_v6) if isinstance(ip.is_v6, bool) else ip.is_v6


def _range(ip: SymIp) -> tuple[z3.BitVecRef, z3.BitVecRef]:
    # (1 << 128) - 1 is all ones: a shift by the full width leaves nothing, as SMT-LIB has it.
    free_bits = (z3.BitVecVal(1, _BITS) << ip.free) - 1
    return ip.address & ~free_bits, ip.address | free_bits


def _known(found: z3.BoolRef) -> Truth:
    if z3.is_true(found):
        return True
    return False if z3.is_false(found) else found


def _number(value: Symbol) -> Number:
    if isinstance(value, SymMeasure):
        return value.term
    raise Unencodable("an extension function on a value of another type")


def _ip(value: Symbol) -> SymIp:
    if isinstance(value, SymIp):
        return value
    raise Unencodable("an ip function on a value of another type")
