"""What a policy says of people, purposes and categories, read off its tree without a request.

The rule kept: what is told is never narrower than what the policy means. A condition that is not
understood narrows nothing; so a lint may miss a fault, and does not make one up.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from chartgate.app.policy_bundle import PolicyVersion
from chartgate.cedar.ast import (
    And,
    Binary,
    Expr,
    GetAttr,
    HasAttr,
    Is,
    Literal,
    Not,
    Or,
    Policy,
    SetExpr,
    Var,
)
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.schema import Schema
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import RECORD, children

CATEGORY: Final = "Category"
ROLE: Final = "Role"
PURPOSE: Final = "Purpose"


@dataclass(frozen=True, slots=True)
class Among:
    """That something is one of ``names``; ``exact`` when it says nothing else."""

    names: frozenset[str]
    exact: bool


ANYTHING: Final = frozenset(("",))
"""Stands for all categories where a schema has none."""


@dataclass(frozen=True, slots=True)
class Certain:
    """A forbid that holds for whoever meets each of ``roles``, over ``categories``."""

    roles: tuple[frozenset[str], ...]
    categories: frozenset[str]


def conjuncts(policy: Policy) -> tuple[Expr, ...]:
    """The clauses as conditions that must all be true; ``unless`` and ``!`` are carried inward."""
    found: list[Expr] = []
    for clause in policy.conditions:
        found += _flat(clause.expression())
    return tuple(found)


def _flat(expr: Expr) -> Iterator[Expr]:
    match expr:
        case And(left, right):
            yield from _flat(left)
            yield from _flat(right)
        case Not(Or(left, right)):
            yield from _flat(Not(left))
            yield from _flat(Not(right))
        case Not(Not(inner)):
            yield from _flat(inner)
        case _:
            yield expr


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and everything in it."""
    waiting = [expr]
    while waiting:
        current = waiting.pop()
        yield current
        waiting.extend(children(current))


def mentions(expr: Expr, variable: str) -> bool:
    """Whether the expression speaks of ``principal``, ``resource`` or ``context``."""
    return any(isinstance(node, Var) and node.name == variable for node in walk(expr))


def named(expr: Expr, kind: str) -> frozenset[str] | None:
    """The ids of a literal entity, or of a set of them, all of one type; else None."""
    if isinstance(expr, Literal) and isinstance(expr.value, EntityUid):
        return frozenset((expr.value.id,)) if expr.value.type == kind else None
    if isinstance(expr, SetExpr):
        found = [named(item, kind) for item in expr.items]
        ids = [ids for ids in found if ids is not None]
        return frozenset().union(*ids) if len(ids) == len(found) else None
    return None


def _is(variable: str, attr: str) -> Callable[[Expr], bool]:
    return lambda expr: expr == GetAttr(Var(variable), attr)  # type: ignore[arg-type]


def _category_leaf(expr: Expr) -> frozenset[str] | None:
    is_category = _is("resource", "category")
    match expr:
        case Binary("==" | "in", left, right) if is_category(left):
            return named(right, CATEGORY)
        case Binary("==", left, right) if is_category(right):
            return named(left, CATEGORY)
        case Binary("contains", listed, item) if is_category(item):
            return named(listed, CATEGORY)
    return None


def _purpose_leaf(expr: Expr) -> frozenset[str] | None:
    is_purpose = _is("context", "purpose")
    match expr:
        case Binary("==" | "in", left, right) if is_purpose(left):
            return named(right, PURPOSE)
        case Binary("contains", listed, item) if is_purpose(item):
            return named(listed, PURPOSE)
    return None


def _role_leaf(expr: Expr) -> frozenset[str] | None:
    match expr:
        case Binary("in" | "==", Var("principal"), right):
            return named(right, ROLE)
        case Is(Var("principal"), _, inside) if inside is not None:
            return named(inside, ROLE)
    return None


def among(
    expr: Expr, leaf: Callable[[Expr], frozenset[str] | None], every: frozenset[str] | None
) -> Among | None:
    """What a condition says of one thing; None if nothing. ``every``: all names there are."""
    found = leaf(expr)
    if found is not None:
        return Among(found, exact=True)
    match expr:
        case And(left, right):
            one, other = among(left, leaf, every), among(right, leaf, every)
            if one is None or other is None:
                known = one or other
                return None if known is None else Among(known.names, exact=False)
            return Among(one.names & other.names, one.exact and other.exact)
        case Or(left, right):
            one, other = among(left, leaf, every), among(right, leaf, every)
            if one is None or other is None:
                return None
            return Among(one.names | other.names, one.exact and other.exact)
        case Binary("!=", left, right):
            return among(Not(Binary("==", left, right)), leaf, every)
        case Not(arg):
            inner = among(arg, leaf, every)
            if inner is None or not inner.exact or every is None:
                return None
            return Among(every - inner.names, exact=True)
    return None


class Facts:
    """A policy version with what is often asked of it, worked out once."""

    def __init__(self, version: PolicyVersion) -> None:
        self.version: Final = version
        self.schema: Final[Schema] = version.schema
        self.entities: Final[Entities] = version.roles.entities()

    @cached_property
    def categories(self) -> frozenset[str]:
        """All categories of the schema."""
        declared = self.schema.entities.get(CATEGORY)
        return frozenset(declared.enum or ()) if declared is not None else frozenset()

    @cached_property
    def principal_types(self) -> frozenset[str]:
        """The types of those who act."""
        return frozenset(t for a in self.schema.actions.values() for t in a.principals)

    @cached_property
    def roles_of(self) -> Mapping[str, frozenset[str]]:
        """Each role with all roles it is in, itself included."""
        return {name: self._above(ROLE, name) for name in self.version.roles.roles}

    @cached_property
    def purposes_of(self) -> Mapping[str, frozenset[str]]:
        """Each purpose with all wider ones, itself included."""
        return {name: self._above(PURPOSE, name) for name in self.version.roles.purposes}

    def _above(self, kind: str, name: str) -> frozenset[str]:
        return frozenset(uid.id for uid in self.entities.ancestors(EntityUid(kind, name)))

    @cached_property
    def _action_groups(self) -> Entities:
        from_schema = self.schema.actions.values()
        return Entities(Entity(action.uid, parents=action.parents) for action in from_schema)

    def actions(self, policy: Policy) -> tuple[EntityUid, ...]:
        """The actions of the schema that the policy's scope admits, in the schema's order."""
        targets = frozenset(e for e in policy.action.entities if isinstance(e, EntityUid))
        applicable = [a.uid for a in self.schema.actions.values() if a.principals]
        if policy.action.op == "all":
            return tuple(applicable)
        if policy.action.op == "==":
            return tuple(uid for uid in applicable if uid in targets)
        return tuple(uid for uid in applicable if targets & self._action_groups.ancestors(uid))

    def is_about_records(self, policy: Policy) -> bool:
        """Whether one of its actions is done to patients' records."""
        return any(RECORD in self.schema.actions[uid].resources for uid in self.actions(policy))

    def is_about_patients(self, policy: Policy) -> bool:
        """The same, unless a clause says that the record is about no patient."""
        no_patient = Not(HasAttr(Var("resource"), "patient"))
        return self.is_about_records(policy) and no_patient not in conjuncts(policy)

    def role_demands(self, policy: Policy) -> tuple[frozenset[str], ...]:
        """For each demand on the principal's roles: the roles any one of which meets it."""
        scope = policy.principal
        demands = []
        ids = [e.id for e in scope.entities if isinstance(e, EntityUid) and e.type == ROLE]
        if ids:
            demands.append(frozenset(ids))
        told = (among(expr, _role_leaf, None) for expr in conjuncts(policy))
        return (*demands, *(one.names for one in told if one is not None))

    def held_by(self, policy: Policy) -> frozenset[str]:
        """The roles each of which, held alone, meets every demand of the policy on roles."""
        demands = self.role_demands(policy)
        return frozenset(
            role for role, above in self.roles_of.items() if all(above & one for one in demands)
        )

    def category_limit(self, policy: Policy) -> frozenset[str] | None:
        """The categories that the conditions leave; None if they speak of none."""
        told = [among(expr, _category_leaf, self.categories) for expr in conjuncts(policy)]
        known = [one.names for one in told if one is not None]
        return frozenset.intersection(*known) if known else None

    def certainty(self, forbid: Policy) -> Certain | None:
        """For whom a forbid is certain to hold, and over what; None if it depends on more."""
        left = self.categories or ANYTHING
        demands = []
        scope = forbid.principal
        if scope.op in ("in", "is in"):
            ids = {e.id for e in scope.entities if isinstance(e, EntityUid) and e.type == ROLE}
            demands.append(frozenset(ids))
        elif scope.op == "==":
            return None
        for expr in conjuncts(forbid):
            category = among(expr, _category_leaf, self.categories)
            role = among(expr, _role_leaf, None)
            if category is not None and category.exact:
                left &= category.names
            elif role is not None and role.exact:
                demands.append(role.names)
            else:
                return None
        return Certain(tuple(demands), left)

    def purpose_limit(self, policy: Policy) -> frozenset[str] | None:
        """The purposes that satisfy the conditions, narrower ones included; None if none is asked."""
        told = [among(expr, _purpose_leaf, None) for expr in conjuncts(policy)]
        known = [one.names for one in told if one is not None]
        if not known:
            return None
        return frozenset(
            name
            for name, wider in self.purposes_of.items()
            if all(wider & wanted for wanted in known)
        )

    def claimable(self, role: str) -> frozenset[str]:
        """The purposes that somebody who holds the role may claim."""
        own = frozenset(self.version.roles.roles[role].purposes)
        return frozenset(name for name, wider in self.purposes_of.items() if wider & own)
