"""What a Cedar expression means: the reference evaluator (Cedar policy language 4.5).

It is written to be read beside Cedar's documentation, one case per construct, and is the measure
of every other reading of a policy. The rules kept: ``&&``, ``||`` and ``if`` evaluate only what
they need; every other construct evaluates all its operands, left to right; both sides of ``&&``
and ``||`` must be booleans when they are evaluated; equality is never an error; arithmetic is
checked; an absent attribute is an error, an absent entity has none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

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
from chartgate.cedar.calls import call, checked
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.errors import EvaluationError
from chartgate.cedar.values import (
    CedarSet,
    DateTime,
    Duration,
    RecordValue,
    Value,
    equal,
    type_name,
)
from chartgate.model.principal import EntityUid

__all__ = ["Env", "EvaluationError", "evaluate", "matches"]


@dataclass(frozen=True, slots=True)
class Env:
    """A request and the entities it is judged in."""

    principal: EntityUid
    action: EntityUid
    resource: EntityUid
    context: Mapping[str, Value]
    entities: Entities


def evaluate(expr: Expr, env: Env) -> Value:
    """The expression's value, or an ``EvaluationError``."""
    try:
        return _value(expr, env)
    except RecursionError:
        # Loaded policies are bounded in depth; a tree built by hand may not be.
        raise EvaluationError("depth", "the expression is nested too deeply") from None


def _value(expr: Expr, env: Env) -> Value:
    match expr:
        case Literal(value):
            return value
        case Var(name):
            return _variable(name, env)
        case And(left, right):
            return _boolean(_value(left, env), "&&") and _boolean(_value(right, env), "&&")
        case Or(left, right):
            return _boolean(_value(left, env), "||") or _boolean(_value(right, env), "||")
        case Not(arg):
            return not _boolean(_value(arg, env), "!")
        case If(test, then, otherwise):
            return _value(then if _boolean(_value(test, env), "if") else otherwise, env)
        case Binary(op, left, right):
            return binary(op, _value(left, env), _value(right, env), env.entities)
        case Unary("neg", arg):
            return checked(-_long(_value(arg, env), "-"))
        case Unary("isEmpty", arg):
            return len(_set(_value(arg, env), "isEmpty")) == 0
        case GetAttr(base, attr):
            return _attribute(_value(base, env), attr, env.entities)
        case HasAttr(base, attr):
            return _has(_value(base, env), attr, env.entities)
        case Like(arg, pattern):
            return matches(pattern, _string(_value(arg, env), "like"))
        case Is(arg, type_, inside):
            uid = _entity(_value(arg, env), "is")
            if uid.type != type_:
                return False
            return True if inside is None else _in(uid, _value(inside, env), env.entities)
        case SetExpr(items):
            return CedarSet.of([_value(item, env) for item in items])
        case RecordExpr(members):
            return RecordValue([(name, _value(item, env)) for name, item in members])
        case Call(fn, args):
            return call(fn, [_value(arg, env) for arg in args])
        case Slot():
            raise EvaluationError("slot", "a template's slot has no value")
        case Unary():
            raise EvaluationError("type", "no such operator")
    assert_never(expr)  # pragma: no cover - every node has its case above


def _variable(name: str, env: Env) -> Value:
    if name == "principal":
        return env.principal
    if name == "action":
        return env.action
    if name == "resource":
        return env.resource
    return env.context


def binary(op: str, left: Value, right: Value, entities: Entities) -> Value:
    """An operator or built-in method applied to two values."""
    match op:
        case "==":
            return equal(left, right)
        case "!=":
            return not equal(left, right)
        case "<" | "<=" | ">" | ">=":
            return _compare(op, left, right)
        case "+":
            return checked(_long(left, op) + _long(right, op))
        case "-":
            return checked(_long(left, op) - _long(right, op))
        case "*":
            return checked(_long(left, op) * _long(right, op))
        case "in":
            return _in(_entity(left, op), right, entities)
        case "contains":
            return right in _set(left, op)
        case "containsAll":
            return _set(left, op).issuperset(_set(right, op))
        case "containsAny":
            return _set(left, op).meets(_set(right, op))
        case "hasTag":
            entity = entities.get(_entity(left, op))
            name = _string(right, op)
            return entity is not None and name in entity.tags
        case "getTag":
            return _tag(_entity(left, op), _string(right, op), entities)
    raise EvaluationError("type", "no such operator")


def _compare(op: str, left: Value, right: Value) -> bool:
    # Long with Long, datetime with datetime, duration with duration; decimals have methods.
    a: int
    b: int
    if (isinstance(left, DateTime) and isinstance(right, DateTime)) or (
        isinstance(left, Duration) and isinstance(right, Duration)
    ):
        a, b = left.ms, right.ms
    else:
        a, b = _long(left, op), _long(right, op)
    if op == "<":
        return a < b
    if op == "<=":
        return a <= b
    return a > b if op == ">" else a >= b


def _in(uid: EntityUid, target: Value, entities: Entities) -> bool:
    if isinstance(target, EntityUid):
        return target in entities.ancestors(uid)
    # Every element must be an entity, even where an earlier one already matches.
    groups = [_entity(member, "in") for member in _set(target, "in")]
    return not entities.ancestors(uid).isdisjoint(groups)


def _stored(uid: EntityUid, entities: Entities) -> Entity:
    entity = entities.get(uid)
    if entity is None:
        raise EvaluationError("missing_entity", f"no data about this {uid.type}")
    return entity


def _attribute(base: Value, attr: str, entities: Entities) -> Value:
    if isinstance(base, EntityUid):
        attributes: Mapping[str, Value] = _stored(base, entities).attrs
    elif isinstance(base, Mapping):
        attributes = base
    else:
        raise _wrong_type(".", base)
    if attr not in attributes:
        raise EvaluationError("missing_attribute", f"no attribute {attr!r}")
    return attributes[attr]


def _has(base: Value, attr: str, entities: Entities) -> bool:
    if isinstance(base, EntityUid):
        entity = entities.get(base)
        return entity is not None and attr in entity.attrs
    if isinstance(base, Mapping):
        return attr in base
    raise _wrong_type("has", base)


def _tag(uid: EntityUid, name: str, entities: Entities) -> Value:
    tags = _stored(uid, entities).tags
    if name not in tags:
        # A tag's name can come from data, so it is not told.
        raise EvaluationError("missing_tag", "no such tag")
    return tags[name]


def matches(pattern: Pattern, text: str) -> bool:
    """``like``: a wildcard stands for any characters, newlines included; all else for itself."""
    # Taking the first place for each chunk is right: any later place leaves less for the rest.
    position, floating = 0, False
    for index, part in enumerate(pattern):
        if isinstance(part, Wildcard):
            floating = True
        elif not floating:
            if not text.startswith(part, position):
                return False
            position += len(part)
        elif index == len(pattern) - 1:
            return len(text) - position >= len(part) and text.endswith(part)
        else:
            found = text.find(part, position)
            if found < 0:
                return False
            position, floating = found + len(part), False
    return floating or position == len(text)


def _wrong_type(op: str, value: Value) -> EvaluationError:
    return EvaluationError("type", f"{op} does not take a value of type {type_name(value)}")


def _boolean(value: Value, op: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(op, value)
    return value


def _long(value: Value, op: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(op, value)
    return value


def _string(value: Value, op: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(op, value)
    return value


def _set(value: Value, op: str) -> CedarSet:
    if not isinstance(value, CedarSet):
        raise _wrong_type(op, value)
    return value


def _entity(value: Value, op: str) -> EntityUid:
    if not isinstance(value, EntityUid):
        raise _wrong_type(op, value)
    return value
