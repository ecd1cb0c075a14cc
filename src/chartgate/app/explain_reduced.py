"""Policies reduced to what still matters once the question is known: the ground for asking everyone.

The rules kept: what is known of the record stands in the condition as a literal, an absent
attribute as an error; a conjunct that surely holds is left out; a policy that surely does not hold
is left out. A forbid is left out only where what comes before the false conjunct cannot fail, since
a forbid that fails is in force. What is left means the same as the whole policy, for everyone.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Final

from chartgate.app.explain_conjuncts import conjuncts_of
from chartgate.app.policy_bundle import PolicyVersion
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
from chartgate.targets.formula import Formula

Known = Mapping[str, Value | None]
"""What is known of the record: an attribute's value, or None where it is known to be absent."""

# Evaluates to an error, as reading an absent attribute does: no context has such a name.
_ABSENT: Final = GetAttr(Var("context"), "\0absent")


@dataclass(frozen=True, slots=True)
class Part:
    """One conjunct of a policy, and what of the request it mentions."""

    expr: Expr
    scope: bool
    variables: frozenset[str]
    attributes: frozenset[str]
    """The record's attributes that it mentions."""
    reads: frozenset[str]
    """The person's attributes that it mentions."""
    names: frozenset[str]
    """Every string and entity id that is written in it."""
    strings: bool
    """Whether it may tell strings apart by more than whether they are equal."""


class Ground:
    """Policies and roles made ready for many questions."""

    def __init__(self, version: PolicyVersion) -> None:
        self.version: Final = version
        self.hierarchy: Final = version.roles.entities()
        self._policies: Final = tuple(
            _whole(policy) for policy in version.policies.policies if not policy.is_template
        )
        self._about: Final[dict[EntityUid, tuple[Reduced, ...]]] = {}
        self._own: Final = frozenset(id(part) for one in self._policies for part in one.parts)
        self.told: Final[dict[object, Formula]] = {}
        """Answers of what is left of a policy, for any question that leaves the same of it."""
        self._claims: Final[dict[str, frozenset[str]]] = {}

    def about(self, action: EntityUid) -> tuple["Reduced", ...]:
        """The policies that speak of an action."""
        found = self._about.get(action)
        if found is None:
            found = self._about[action] = tuple(
                one
                for one in self._policies
                if one.policy.action.op == "all" or action in one.policy.action.entities
            )
        return found

    def same(self, one: "Reduced") -> object:
        """What is equal where the same is left of a policy; None where it was rewritten."""
        parts = tuple(id(part) for part in one.parts)
        return (one.policy.id, parts) if self._own.issuperset(parts) else None

    def claims(self, role: str) -> frozenset[str]:
        """The purposes that a role may claim: those it lists, and narrower ones."""
        known = self._claims.get(role)
        if known is None:
            book = self.version.roles
            listed = book.roles[role].purposes if role in book.roles else ()
            wanted = {EntityUid("Purpose", p) for p in listed}
            known = self._claims[role] = frozenset(
                p
                for p in book.purposes
                if not wanted.isdisjoint(self.hierarchy.ancestors(EntityUid("Purpose", p)))
            )
        return known


def _part(expr: Expr, scope: bool) -> Part:
    variables: set[str] = set()
    attributes: set[str] = set()
    reads: set[str] = set()
    names: set[str] = set()
    strings = False
    waiting = [expr]
    while waiting:
        one = waiting.pop()
        if one is _ABSENT:
            continue
        if isinstance(one, Literal):
            names.update(names_of(one.value))
        elif isinstance(one, Var):
            # The action is known always.
            if one.name != "action":
                variables.add(one.name)
        elif isinstance(one, GetAttr | HasAttr) and isinstance(one.base, Var):
            if one.base.name == "resource":
                attributes.add(one.attr)
            elif one.base.name == "principal":
                reads.add(one.attr)
            variables.add(one.base.name)
        else:
            tags = isinstance(one, Binary) and one.op in {"hasTag", "getTag"}
            strings = strings or tags or isinstance(one, Like | Call)
            waiting.extend(children(one))
    return Part(
        expr,
        scope,
        frozenset(variables),
        frozenset(attributes),
        frozenset(reads),
        frozenset(names),
        strings,
    )


@dataclass(frozen=True, slots=True)
class Reduced:
    """What is left of a policy: it concerns those below one of ``roles`` (None = everyone)."""

    policy: Policy
    roles: frozenset[str] | None
    parts: tuple[Part, ...]

    @property
    def condition(self) -> Expr:
        """What is left of it, as one expression."""
        return _joined(self.parts)


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


def reduced(policies: Iterable[Reduced], env: Env, known: Known) -> tuple[Reduced, ...]:
    """The policies with what is known of the record written in."""
    return _settled(policies, env, known, _UNKNOWN)


def in_context(policies: Iterable[Reduced], env: Env) -> tuple[Reduced, ...]:
    """The same for one context: purpose and time are known."""
    return _settled(policies, env, {}, _UNKNOWN - {"context"})


_UNKNOWN: Final = frozenset({"principal", "context", "resource"})


def _settled(
    policies: Iterable[Reduced], env: Env, known: Known, unknown: frozenset[str]
) -> tuple[Reduced, ...]:
    found = []
    names = frozenset(known)
    for one in policies:
        kept = _kept(one, env, known, names, unknown)
        if kept is not None:
            found.append(one if kept == one.parts else replace(one, parts=kept))
    return tuple(found)


def _kept(
    one: Reduced, env: Env, known: Known, names: frozenset[str], unknown: frozenset[str]
) -> tuple[Part, ...] | None:
    """The conjuncts that are not settled yet; None when the policy surely does not hold."""
    permit = one.policy.effect == "permit"
    kept: list[Part] = []
    cannot_fail = True
    for part in one.parts:
        if not part.attributes.isdisjoint(names):
            part = _part(known_in(part.expr, known), part.scope)
        if part.variables & unknown:
            kept.append(part)
            # A head compares names: it is true or false, whatever the data.
            cannot_fail = cannot_fail and part.scope
            continue
        try:
            holds = evaluate(part.expr, env) is True
        except EvaluationError:
            if permit:
                return None
            kept.append(part)
            cannot_fail = False
            continue
        if holds:
            continue
        if permit or cannot_fail:
            return None
        kept.append(replace(part, expr=FALSE))
    return tuple(kept)


def _whole(policy: Policy) -> Reduced:
    """The policy as it is. Who is concerned by role is told by ``roles`` instead of a conjunct."""
    parts = [_part(expr, scope) for expr, scope in conjuncts_of(policy)]
    entities = policy.principal.entities
    roles = None
    if policy.principal.op == "in" and all(
        isinstance(e, EntityUid) and e.type == "Role" for e in entities
    ):
        # Always the first conjunct: it is asked by looking the person's roles up.
        roles = frozenset(e.id for e in entities if isinstance(e, EntityUid))
        parts = parts[1:]
    if policy.effect == "permit":
        # A permit holds when all of it is true, whatever the order: what settles most goes first.
        parts.sort(key=lambda part: len(part.variables - {"resource"}) + len(part.attributes))
    return Reduced(policy, roles, tuple(parts))


def _joined(parts: tuple[Part, ...]) -> Expr:
    exprs = [part.expr for part in parts]
    return reduce(And, exprs[1:], exprs[0]) if exprs else TRUE


def variables(expr: Expr) -> frozenset[str]:
    """The parts of the request that an expression mentions, but the action."""
    return _part(expr, scope=False).variables


def read_of_the_person(policies: Iterable[Reduced]) -> frozenset[str]:
    """The attributes of the person that some policy reads."""
    return frozenset().union(*(part.reads for one in policies for part in one.parts))


def names_in(policies: Iterable[Reduced]) -> frozenset[str]:
    """Every string and entity id that is written in the policies."""
    return frozenset().union(*(part.names for one in policies for part in one.parts))


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


def looks_into_strings(policies: Iterable[Reduced]) -> bool:
    """Whether some policy tells strings apart by more than whether they are equal."""
    return any(part.strings for one in policies for part in one.parts)
