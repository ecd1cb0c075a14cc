"""A choice between two values of one type, shape by shape."""

from typing import Final

import z3

from chartgate.targets.smt.logic import Truth, any_of, both, chosen_number, either, negated, term
from chartgate.targets.smt.symbols import (
    Symbol,
    SymBool,
    SymEntity,
    SymIp,
    SymLong,
    SymMeasure,
    SymRecord,
    SymSet,
    SymString,
    Unencodable,
)
from chartgate.targets.smt.universe import Universe


def merged(universe: Universe, test: Truth, then: Symbol, otherwise: Symbol) -> Symbol:
    """``then`` where ``test``, else ``otherwise``: two values of one type."""
    if isinstance(test, bool):
        return then if test else otherwise
    match then, otherwise:
        case SymBool(a), SymBool(b):
            return SymBool(z3.If(test, term(a), term(b)))
        case SymLong(m), SymLong(n):
            return SymLong(chosen_number(test, m, n))
        case SymMeasure(kind, m), SymMeasure(_, n):
            return SymMeasure(kind, chosen_number(test, m, n))
        case SymString(s), SymString(t):
            return SymString(z3.If(test, universe.string_term(s), universe.string_term(t)))
        case SymEntity(kind, m), SymEntity(other, n) if kind == other:
            return SymEntity(kind, chosen_number(test, m, n))
        case SymIp(v, a, f), SymIp(w, b, g):
            return SymIp(z3.If(test, term(v), term(w)), z3.If(test, a, b), z3.If(test, f, g))
        case SymRecord(left), SymRecord(right):
            fields: dict[str, tuple[Truth, Symbol]] = {}
            for name in {**left, **right}:
                here, there = left.get(name), right.get(name)
                if here is None or there is None:
                    present, value = here or there or (False, then)
                    fields[name] = (both(test if here else negated(test), present), value)
                else:
                    fields[name] = (
                        either(both(test, here[0]), both(negated(test), there[0])),
                        merged(universe, test, here[1], there[1]),
                    )
            return SymRecord(fields)
        case SymSet(), SymSet():
            items = tuple((both(test, g), v) for g, v in then.items)
            items += tuple((both(negated(test), g), v) for g, v in otherwise.items)
            rest = None if then.rest is otherwise.rest is None else _Either(test, then, otherwise)
            return SymSet(items, rest, then.element or otherwise.element)
    raise Unencodable("a choice between values of two types")


class _Either:
    """The open part of one of two sets."""

    def __init__(self, test: Truth, then: SymSet, otherwise: SymSet) -> None:
        self._ways: Final = ((test, then.rest), (negated(test), otherwise.rest))

    def has(self, value: Symbol) -> Truth:
        return any_of(both(test, rest.has(value)) for test, rest in self._ways if rest is not None)
