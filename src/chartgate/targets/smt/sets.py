"""Sets, and equality of any two values (Cedar "Data types": deep, never an error)."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import z3

from chartgate.targets.smt.logic import (
    Truth,
    agree,
    all_of,
    any_of,
    both,
    either,
    implies,
    negated,
    same_number,
)
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
)
from chartgate.targets.smt.universe import Universe

Says: TypeAlias = Callable[[Symbol], Truth]
Inside: TypeAlias = Callable[[SymEntity, SymEntity], Truth]


class Sets:
    """The operations on sets; the same question about the same two sets is asked once."""

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._asked: dict[tuple[str, int, int], tuple[Truth, SymSet, SymSet]] = {}

    def equal(self, left: Symbol, right: Symbol) -> Truth:
        """Cedar's ``==``."""
        match left, right:
            case SymBool(a), SymBool(b):
                return agree(a, b)
            case SymLong(m), SymLong(n):
                return same_number(m, n)
            case SymMeasure(kind, m), SymMeasure(other, n):
                return kind == other and same_number(m, n)
            case SymString(s), SymString(t):
                if isinstance(s, str) and isinstance(t, str):
                    return s == t
                one, other_one = self._universe.string_term(s), self._universe.string_term(t)
                return True if one.eq(other_one) else _truth(one == other_one)
            case SymEntity(), SymEntity():
                return self._universe.same_entity(left, right)
            case SymIp(v, a, f), SymIp(w, b, g):
                return all_of(
                    (agree(v, w), _truth(z3.simplify(a == b)), _truth(z3.simplify(f == g)))
                )
            case SymRecord(), SymRecord():
                return self._equal_records(left, right)
            case SymSet(), SymSet():
                return both(self.contains_all(left, right), self.contains_all(right, left))
        return False

    def _equal_records(self, left: SymRecord, right: SymRecord) -> Truth:
        parts: list[Truth] = []
        for name in {**left.fields, **right.fields}:
            here, there = left.fields.get(name), right.fields.get(name)
            if here is None or there is None:
                parts.append(negated((here or there or (False, None))[0]))
            else:
                parts.append(agree(here[0], there[0]))
                parts.append(implies(here[0], self.equal(here[1], there[1])))
        return all_of(parts)

    def contains(self, within: SymSet, value: Symbol) -> Truth:
        """``within.contains(value)``."""
        written = any_of(both(there, self.equal(item, value)) for there, item in within.items)
        return written if within.rest is None else either(written, within.rest.has(value))

    def contains_all(self, big: SymSet, small: SymSet) -> Truth:
        """``big.containsAll(small)``."""
        if big is small:
            return True
        written = all_of(implies(there, self.contains(big, item)) for there, item in small.items)
        rest, element = small.rest, small.element
        if rest is None or element is None:
            return written
        return both(
            written,
            self._once("all", big, small, lambda v: implies(rest.has(v), self.contains(big, v))),
        )

    def contains_any(self, left: SymSet, right: SymSet) -> Truth:
        """``left.containsAny(right)``."""
        found = any_of(
            [
                *(both(there, self.contains(right, item)) for there, item in left.items),
                *(both(there, self.contains(left, item)) for there, item in right.items),
            ]
        )
        a, b, element = left.rest, right.rest, left.element
        if a is None or b is None or element is None:
            return found
        apart = self._once("any", left, right, lambda v: negated(both(a.has(v), b.has(v))))
        return either(found, negated(apart))

    def is_empty(self, of: SymSet) -> Truth:
        """``of.isEmpty()``."""
        nothing = all_of(negated(there) for there, _ in of.items)
        rest = of.rest
        if rest is None or of.element is None:
            return nothing
        return both(nothing, self._once("none", of, of, lambda v: negated(rest.has(v))))

    def within_any(self, child: SymEntity, groups: SymSet, inside: Inside) -> Truth:
        """``child in groups``."""
        found = any_of(
            both(there, inside(child, item))
            for there, item in groups.items
            if isinstance(item, SymEntity)
        )
        rest, element = groups.rest, groups.element
        if rest is None or element is None:
            return found

        def outside(value: Symbol) -> Truth:
            assert isinstance(value, SymEntity)
            return negated(both(rest.has(value), inside(child, value)))

        return either(found, negated(self._universe.every(element, outside)))

    def _once(self, what: str, left: SymSet, right: SymSet, says: Says) -> Truth:
        index = (what, id(left), id(right))
        if index not in self._asked:
            element = right.element
            assert element is not None
            self._asked[index] = (self._universe.every(element, says), left, right)
        return self._asked[index][0]


def written_set(items: Iterable[Symbol]) -> SymSet:
    """A set literal."""
    return SymSet(tuple((True, item) for item in items))


def _truth(found: object) -> Truth:
    if isinstance(found, z3.BoolRef) and z3.is_true(found):
        return True
    if isinstance(found, z3.BoolRef) and z3.is_false(found):
        return False
    assert isinstance(found, bool | z3.BoolRef)
    return found
