"""Policies reduced to what still matters once the question is known: the ground for asking everyone.

The rules kept: what is known of the record stands in the condition as a literal, an absent
attribute as an error; a conjunct that surely holds is left out; a policy that surely does not hold
is left out. A forbid is left out only where what comes before the false conjunct cannot fail, since
a forbid that fails is in force. What is left means the same as the whole policy, for everyone.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Final

from chartgate.app.explain_conjuncts import conjuncts_of
from chartgate.cedar.ast import (
    FALSE,
    TRUE,
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
    Policy,
    RecordExpr,
    SetExpr,
    Unary,
    Var,
)
from chartgate.cedar.evaluate import Env, EvaluationError, evaluate
from chartgate.cedar.values import CedarSet, Value
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import children

Known = Mapping[str, Value | None]
"""What is known of the record: an attribute's value, or None where it is known to be absent."""

# Evaluates to an error, as reading an absent attribute does: no context has such a name.
_ABSENT: Final = GetAttr(Var("context"), "\0absent")


@dataclass(frozen=True, slots=True)
class Reduced:
    """What is left of a policy: it concerns those below one of ``roles`` (None = everyone)."""

    policy: Policy
    condition: Expr
    roles: frozenset[str] | None


def known_in(expr: Expr, known: Known) -> Expr:
    """The expression with what is known of the record written into it."""

    def put(one: Expr) -> Expr:
        match one:
            case HasAttr(Var("resource"), attr) if attr in known:
                return FALSE if known[attr] is None else TRUE
            case GetAttr(Var("resource"), attr) if attr in known:
                value = known[attr]
                return _ABSENT if value is None else Literal(value)
            case And(left, right):
                return And(put(left), put(right))
            case Or(left, right):
                return Or(put(left), put(right))
            case Not(arg):
                return Not(put(arg))
            case Binary(op, left, right):
                return Binary(op, put(left), put(right))
            case Unary(op, arg):
                return Unary(op, put(arg))
            case GetAttr(base, attr):
                return GetAttr(put(base), attr)
            case HasAttr(base, attr):
                return HasAttr(put(base), attr)
            case Like(arg, pattern):
                return Like(put(arg), pattern)
            case Is(arg, type_, inside):
                return Is(put(arg), type_, None if inside is None else put(inside))
            case If(test, then, otherwise):
                return If(put(test), put(then), put(otherwise))
            case SetExpr(items):
                return SetExpr(tuple(map(put, items)))
            case RecordExpr(members):
                return RecordExpr(tuple((name, put(item)) for name, item in members))
            case Call(fn, args):
                return Call(fn, tuple(map(put, args)))
        return one

    return put(expr)


def reduced(policies: Iterable[Policy], env: Env, known: Known) -> tuple[Reduced, ...]:
    """The policies about one action and label, with what is known of the record written in."""
    found = []
    for policy in policies:
        if policy.is_template or not _concerns(policy, env.action):
            continue
        parts = [(known_in(e, known), scope) for e, scope in conjuncts_of(policy)]
        kept = _kept(policy.effect, parts, env, frozenset({"principal", "context", "resource"}))
        if kept is not None:
            found.append(_reduced(policy, kept))
    return tuple(found)


def in_context(policies: Iterable[Reduced], env: Env) -> tuple[Reduced, ...]:
    """The same for one context: purpose and time are known."""
    found = []
    for one in policies:
        parts = [(e, False) for e in _conjuncts(one.condition)]
        # The person's role was taken out of the condition; it cannot fail.
        kept = _kept(one.policy.effect, parts, env, frozenset({"principal", "resource"}))
        if kept is not None:
            found.append(Reduced(one.policy, _joined(e for e, _ in kept), one.roles))
    return tuple(found)


def _concerns(policy: Policy, action: EntityUid) -> bool:
    return policy.action.op == "all" or action in policy.action.entities


def _kept(
    effect: str, parts: Iterable[tuple[Expr, bool]], env: Env, unknown: frozenset[str]
) -> list[tuple[Expr, bool]] | None:
    """The conjuncts that are not settled yet; None when the policy surely does not hold."""
    kept: list[tuple[Expr, bool]] = []
    cannot_fail = True
    for expr, scope in parts:
        if variables(expr) & unknown:
            kept.append((expr, scope))
            # A head compares names: it is true or false, whatever the data.
            cannot_fail = cannot_fail and scope
            continue
        try:
            holds = evaluate(expr, env) is True
        except EvaluationError:
            if effect == "permit":
                return None
            kept.append((expr, scope))
            cannot_fail = False
            continue
        if holds:
            continue
        if effect == "permit" or cannot_fail:
            return None
        kept.append((FALSE, scope))
    return kept


def _reduced(policy: Policy, kept: list[tuple[Expr, bool]]) -> Reduced:
    match policy.principal.op, policy.principal.entities:
        case "in", entities if all(isinstance(e, EntityUid) for e in entities):
            roles = frozenset(e.id for e in entities if isinstance(e, EntityUid))
            if all(isinstance(e, EntityUid) and e.type == "Role" for e in entities):
                # Always the first conjunct: it is asked by looking the person's roles up.
                return Reduced(policy, _joined(e for e, _ in kept[1:]), roles)
    return Reduced(policy, _joined(e for e, _ in kept), None)


def _joined(exprs: Iterable[Expr]) -> Expr:
    found = list(exprs)
    return reduce(And, found[1:], found[0]) if found else TRUE


def _conjuncts(expr: Expr) -> Iterator[Expr]:
    if isinstance(expr, And):
        yield from _conjuncts(expr.left)
        yield expr.right
    elif expr != TRUE:
        yield expr


def variables(expr: Expr) -> frozenset[str]:
    """The parts of the request that an expression mentions; the action is always known."""
    found: set[str] = set()
    waiting = [expr]
    while waiting:
        one = waiting.pop()
        if one == _ABSENT:
            continue
        if isinstance(one, Var):
            found.add(one.name)
        waiting.extend(children(one))
    return frozenset(found)


def names_in(exprs: Iterable[Expr]) -> frozenset[str]:
    """Every string and entity id that is written in the expressions."""
    found: set[str] = set()
    waiting = list(exprs)
    while waiting:
        one = waiting.pop()
        if isinstance(one, Literal):
            found.update(names_of(one.value))
        waiting.extend(children(one))
    return frozenset(found)


def names_of(value: Value) -> Iterator[str]:
    """The strings and entity ids in a value."""
    if isinstance(value, str) and not isinstance(value, EntityUid):
        yield value
    elif isinstance(value, EntityUid):
        yield value.id
    elif isinstance(value, CedarSet):
        for member in value:
            yield from names_of(member)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from names_of(item)


def looks_into_strings(exprs: Iterable[Expr]) -> bool:
    """Whether some expression tells strings apart by more than whether they are equal."""
    waiting = list(exprs)
    while waiting:
        one = waiting.pop()
        if isinstance(one, Like | Call) or (
            isinstance(one, Binary) and one.op in {"hasTag", "getTag"}
        ):
            return True
        waiting.extend(children(one))
    return False
