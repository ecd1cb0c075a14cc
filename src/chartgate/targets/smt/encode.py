"""An expression as its value and the condition under which it has none.

The cases are those of ``chartgate.cedar.evaluate``, in the same order, with the same short
circuits: what the evaluator does not look at is not translated either. Expressions must have
passed strict validation; what has a type that validation excludes is ``Unencodable``.
"""

from dataclasses import dataclass
from typing import assert_never

import z3

from chartgate.cedar.ast import (
    And,
    Binary,
    Call,
    Expr,
    GetAttr,
    HasAttr,
    If,
    Is,
    Like,
    Literal,
    Not,
    Or,
    Pattern,
    RecordExpr,
    SetExpr,
    Slot,
    Unary,
    Var,
    Wildcard,
)
from chartgate.cedar.evaluate import matches
from chartgate.cedar.values import (
    I64_MAX,
    I64_MIN,
    CedarSet,
    DateTime,
    Decimal,
    Duration,
    IpAddr,
    Value,
)
from chartgate.model.principal import EntityUid
from chartgate.targets.smt import calls
from chartgate.targets.smt.logic import (
    Number,
    Truth,
    any_of,
    both,
    chosen,
    either,
    less,
    negated,
)
from chartgate.targets.smt.sets import Sets, written_set
from chartgate.targets.smt.shapes import merged
from chartgate.targets.smt.symbols import (
    Symbol,
    SymBool,
    SymEntity,
    SymLong,
    SymMeasure,
    SymRecord,
    SymSet,
    SymString,
    Unencodable,
)
from chartgate.targets.smt.universe import Universe
from chartgate.targets.smt.worlds import Field, World


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A value, and when there is none. Where ``fails`` is true the value means nothing."""

    value: Symbol
    fails: Truth = False


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A request of which only the types are known, and the entities it is judged in."""

    principal: SymEntity
    action: EntityUid
    resource: SymEntity
    context: SymRecord
    world: World


class Encoder:
    """Expressions about one request."""

    def __init__(self, universe: Universe, sets: Sets, asked: Asked) -> None:
        self._universe = universe
        self._sets = sets
        self._asked = asked

    def holds(self, expr: Expr) -> tuple[Truth, Truth]:
        """When a condition is true, and when it has no value."""
        try:
            found = self._value(expr)
        except RecursionError:
            raise Unencodable("a condition nested too deeply") from None
        return both(negated(found.fails), _bool(found)), found.fails

    def _value(self, expr: Expr) -> Outcome:
        match expr:
            case Literal(value):
                return Outcome(self._literal(value))
            case Var(name):
                return Outcome(self._variable(name))
            case And(left, right):
                return self._and(self._value(left), right)
            case Or(left, right):
                return self._or(self._value(left), right)
            case Not(arg):
                found = self._value(arg)
                return Outcome(SymBool(negated(_bool(found))), found.fails)
            case If(test, then, otherwise):
                return self._if(self._value(test), then, otherwise)
            case Binary(op, left, right):
                return self._binary(op, self._value(left), self._value(right))
            case Unary("neg", arg):
                found = self._value(arg)
                return _checked(0 - _long(found), found.fails)
            case Unary("isEmpty", arg):
                found = self._value(arg)
                return Outcome(SymBool(self._sets.is_empty(_set(found))), found.fails)
            case GetAttr(base, attr):
                found = self._value(base)
                field = self._field(found.value, attr)
                if field is None:
                    # Validation lets this pass only where the evaluator never arrives.
                    return Outcome(SymBool(False), True)
                return Outcome(field[1], either(found.fails, negated(field[0])))
            case HasAttr(base, attr):
                found = self._value(base)
                field = self._field(found.value, attr)
                return Outcome(SymBool(field[0] if field else False), found.fails)
            case Like(arg, pattern):
                found = self._value(arg)
                return Outcome(SymBool(self._like(_string(found), pattern)), found.fails)
            case Is(arg, type_, inside):
                return self._is(self._value(arg), type_, inside)
            case SetExpr(items):
                members = [self._value(item) for item in items]
                fails = any_of(member.fails for member in members)
                return Outcome(written_set(member.value for member in members), fails)
            case RecordExpr(items):
                pairs = [(name, self._value(item)) for name, item in items]
                fails = any_of(found.fails for _, found in pairs)
                return Outcome(SymRecord({n: (True, f.value) for n, f in pairs}), fails)
            case Call(fn, args):
                given = [self._value(arg) for arg in args]
                result, fails = calls.call(fn, [found.value for found in given])
                return Outcome(result, any_of([*(found.fails for found in given), fails]))
            case Slot():
                return Outcome(SymBool(False), True)
            case Unary():
                raise Unencodable("an unknown operator")
        assert_never(expr)

    def _and(self, left: Outcome, right: Expr) -> Outcome:
        if left.fails is True or _bool(left) is False:
            return left
        found = self._value(right)
        return Outcome(
            SymBool(both(_bool(left), _bool(found))),
            either(left.fails, both(_bool(left), found.fails)),
        )

    def _or(self, left: Outcome, right: Expr) -> Outcome:
        if left.fails is True or _bool(left) is True:
            return left
        found = self._value(right)
        return Outcome(
            SymBool(either(_bool(left), _bool(found))),
            either(left.fails, both(negated(_bool(left)), found.fails)),
        )

    def _if(self, test: Outcome, then: Expr, otherwise: Expr) -> Outcome:
        which = _bool(test)
        if test.fails is True:
            return test
        if isinstance(which, bool):
            found = self._value(then if which else otherwise)
            return Outcome(found.value, either(test.fails, found.fails))
        here, there = self._value(then), self._value(otherwise)
        fails = either(test.fails, chosen(which, here.fails, there.fails))
        # A branch that always fails may have no type to speak of.
        if here.fails is True or there.fails is True:
            return Outcome(there.value if here.fails is True else here.value, fails)
        return Outcome(merged(self._universe, which, here.value, there.value), fails)

    def _is(self, found: Outcome, type_: str, inside: Expr | None) -> Outcome:
        entity = _entity(found.value)
        if entity.type != type_ or inside is None:
            return Outcome(SymBool(entity.type == type_), found.fails)
        groups = self._value(inside)
        return Outcome(SymBool(self._in(entity, groups.value)), either(found.fails, groups.fails))

    def _binary(self, op: str, left: Outcome, right: Outcome) -> Outcome:
        fails = either(left.fails, right.fails)
        match op:
            case "==":
                return Outcome(SymBool(self._sets.equal(left.value, right.value)), fails)
            case "!=":
                return Outcome(SymBool(negated(self._sets.equal(left.value, right.value))), fails)
            case "<" | "<=" | ">" | ">=":
                a, b = _measured(left), _measured(right)
                swapped = op in {">", "<="}
                found = less(b, a) if swapped else less(a, b)
                return Outcome(SymBool(negated(found) if "=" in op else found), fails)
            case "+":
                return _checked(_long(left) + _long(right), fails)
            case "-":
                return _checked(_long(left) - _long(right), fails)
            case "*":
                return _checked(_long(left) * _long(right), fails)
            case "in":
                return Outcome(SymBool(self._in(_entity(left.value), right.value)), fails)
            case "contains":
                return Outcome(SymBool(self._sets.contains(_set(left), right.value)), fails)
            case "containsAll":
                return Outcome(SymBool(self._sets.contains_all(_set(left), _set(right))), fails)
            case "containsAny":
                return Outcome(SymBool(self._sets.contains_any(_set(left), _set(right))), fails)
            case "hasTag":
                tag = self._tag(left, right)
                return Outcome(SymBool(tag[0] if tag else False), fails)
            case "getTag":
                tag = self._tag(left, right)
                if tag is None:
                    return Outcome(SymBool(False), True)
                return Outcome(tag[1], either(fails, negated(tag[0])))
        raise Unencodable(f"the operator {op}")

    def _in(self, child: SymEntity, target: Symbol) -> Truth:
        world = self._asked.world
        if isinstance(target, SymEntity):
            return world.within(child, target)
        if isinstance(target, SymSet):
            return self._sets.within_any(child, target, world.within)
        raise Unencodable("in with something that is no entity")

    def _tag(self, left: Outcome, right: Outcome) -> Field:
        name = right.value
        if not isinstance(name, SymString):
            raise Unencodable("a tag whose name is no text")
        return self._asked.world.tag(_entity(left.value), name)

    def _field(self, base: Symbol, attr: str) -> Field:
        if isinstance(base, SymRecord):
            return base.fields.get(attr)
        return self._asked.world.attribute(_entity(base), attr)

    def _variable(self, name: str) -> Symbol:
        match name:
            case "principal":
                return self._asked.principal
            case "action":
                return self._universe.entity(self._asked.action)
            case "resource":
                return self._asked.resource
        return self._asked.context

    def _literal(self, value: Value) -> Symbol:
        match value:
            case bool():
                return SymBool(value)
            case int():
                return SymLong(value)
            case str():
                return SymString(value)
            case EntityUid():
                return self._universe.entity(value)
            case Decimal(units):
                return SymMeasure("decimal", units)
            case DateTime(ms):
                return SymMeasure("datetime", ms)
            case Duration(ms):
                return SymMeasure("duration", ms)
            case IpAddr():
                return calls.known_ip(value)
            case CedarSet():
                return written_set(self._literal(item) for item in value)
        return SymRecord({name: (True, self._literal(item)) for name, item in value.items()})

    def _like(self, text: "str | z3.ExprRef", pattern: Pattern) -> Truth:
        if isinstance(text, str):
            return matches(pattern, text)
        if not self._universe.texts:
            raise Unencodable("like on texts that were taken for mere names")
        any_text = z3.Full(z3.ReSort(z3.StringSort()))
        parts = [
            any_text if isinstance(part, Wildcard) else z3.Re(self._universe.string_term(part))
            for part in pattern
        ] or [z3.Re(z3.StringVal(""))]
        found: z3.BoolRef = z3.InRe(text, parts[0] if len(parts) == 1 else z3.Concat(*parts))
        return found


def _checked(number: Number, fails: Truth) -> Outcome:
    if isinstance(number, int):
        return Outcome(SymLong(number), either(fails, not I64_MIN <= number <= I64_MAX))
    beyond = z3.Or(number < I64_MIN, number > I64_MAX)
    return Outcome(SymLong(number), either(fails, beyond))


def _bool(found: Outcome) -> Truth:
    if isinstance(found.value, SymBool):
        return found.value.term
    raise Unencodable("a condition that is no truth value")


def _long(found: Outcome) -> Number:
    if isinstance(found.value, SymLong):
        return found.value.term
    raise Unencodable("arithmetic on something else than Long")


def _measured(found: Outcome) -> Number:
    if isinstance(found.value, SymLong | SymMeasure):
        return found.value.term
    raise Unencodable("a comparison of something else than Long, datetime or duration")


def _string(found: Outcome) -> "str | z3.ExprRef":
    if isinstance(found.value, SymString):
        return found.value.term
    raise Unencodable("like on something else than a text")


def _set(found: Outcome) -> SymSet:
    if isinstance(found.value, SymSet):
        return found.value
    raise Unencodable("a set operation on something else than a set")


def _entity(value: Symbol) -> SymEntity:
    if isinstance(value, SymEntity):
        return value
    raise Unencodable("an entity operation on something else than an entity")
