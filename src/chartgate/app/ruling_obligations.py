"""What would change a denial: another purpose, a stronger sign-in, the emergency procedure.

The rules kept: what is offered was decided, on the same facts, by the same version; nothing is
offered about a patient whom the source does not know but what does not depend on the patient.

The policies are read once for what cannot matter, so that few questions are left to decide. A
policy tells purposes apart by the named ones that each is in; purposes that no policy for this
person and action tells apart are one. A permit that asks for purposes only to be in named ones
cannot come to hold under a purpose that is in none more of them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from chartgate.app.ruling import Obligation
from chartgate.app.ruling_verdicts import Verdict
from chartgate.app.standing import Standing
from chartgate.cedar.ast import (
    And,
    Binary,
    Expr,
    GetAttr,
    HasAttr,
    Literal,
    Or,
    Policy,
    Scope,
    SetExpr,
    Var,
)
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import children, entities_in

ACR: Final = "acr"
ACR_VALUES: Final = (1, 2, 3)
"""How strongly somebody authenticated: a password, a second factor, one that cannot be phished."""
ACR_URN: Final = "urn:chartgate:acr:"
_CLAIM: Final = "purpose"
_MOST_KEPT: Final = 16_384

Groups = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class _Read:
    """What one policy asks of the purpose."""

    policy: Policy
    named: frozenset[str]
    is_opaque: bool
    """It asks otherwise than by the place among named purposes."""
    is_growing: bool
    """More named purposes can only make it hold."""

    def concerns(self, actions: frozenset[EntityUid], groups: frozenset[EntityUid]) -> bool:
        scope = self.policy.action
        # Groups of actions are rare: whoever names one is taken to concern every action.
        return (
            scope.op == "all"
            or not actions.isdisjoint(scope.entities)
            or not groups.isdisjoint(scope.entities)
        )

    def admits(self, who: EntityUid, above: frozenset[EntityUid]) -> bool:
        scope: Scope = self.policy.principal
        if scope.type is not None and scope.type != who.type:
            return False
        if scope.op == "==":
            return who in scope.entities
        return scope.op in {"all", "is"} or not above.isdisjoint(scope.entities)


class Hints:
    """What the policies ask of the context, read once."""

    def __init__(
        self,
        policies: Iterable[Policy],
        wider: Mapping[str, frozenset[str]],
        groups: frozenset[EntityUid],
    ) -> None:
        """``wider``: each purpose with those it is in; ``groups``: those of actions."""
        self._groups: Final = groups
        self._wider: Final = wider
        self._reads: Final[list[_Read]] = []
        self._without: Final[dict[str, set[str]]] = {_CLAIM: set(), ACR: set()}
        self._granting: Final[set[str]] = set()
        self.asks_acr = False
        """Whether any policy asks how strongly somebody signed in."""
        for policy in policies:
            self._read(policy)
        self._kept: Final[dict[object, Groups]] = {}

    def _read(self, policy: Policy) -> None:
        condition = policy.condition()
        names = set(_context_names(condition))
        for name, without in self._without.items():
            if name not in names and "" not in names:
                without.add(policy.id)
            elif policy.effect == "permit":
                self._granting.add(name)
        self.asks_acr |= ACR in names or "" in names
        if policy.id not in self._without[_CLAIM]:
            self._reads.append(
                _Read(
                    policy,
                    frozenset(u.id for u in entities_in(condition) if u.type == "Purpose"),
                    "" in names or _is_opaque(condition),
                    all(_is_growing(clause.expression()) for clause in policy.conditions),
                )
            )

    def can_help(self, name: str, verdict: Verdict, *, has_grants: bool) -> bool:
        """Whether another value of what the context says could lift every forbid, and give the
        permit where one is missing. Grants are policies that were not read here."""
        return self._without[name].isdisjoint(verdict.barring) and (
            not verdict.lacks or has_grants or name in self._granting
        )

    def others(
        self,
        standing: Standing,
        above: frozenset[EntityUid],
        actions: tuple[EntityUid, ...],
        current: str,
        *,
        lacks: bool,
        has_grants: bool,
    ) -> Groups:
        """The purposes worth deciding on, those together that no policy tells apart.

        ``above``: everything that the person is in. ``lacks``: whether some permit is missing.
        """
        if has_grants:
            return tuple((name,) for name in standing.offered if name != current)
        key = (above, actions, standing.offered, current, lacks)
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            found = self._kept[key] = self._grouped(standing, above, actions, current, lacks=lacks)
        return found

    def _grouped(
        self,
        standing: Standing,
        above: frozenset[EntityUid],
        actions: tuple[EntityUid, ...],
        current: str,
        *,
        lacks: bool,
    ) -> Groups:
        asked = frozenset(actions)
        reads = [
            r
            for r in self._reads
            if r.concerns(asked, self._groups) and r.admits(standing.uid, above)
        ]
        if any(read.is_opaque for read in reads):
            return tuple((name,) for name in standing.offered if name != current)
        permits = [read for read in reads if read.policy.effect == "permit"]
        named = frozenset[str]().union(*(read.named for read in reads))
        giving = frozenset[str]().union(*(read.named for read in permits))
        own = self._wider[current] & named
        only_more = lacks and all(read.is_growing for read in permits)
        groups: dict[frozenset[str], list[str]] = {}
        for name in standing.offered:
            kind = self._wider[name] & named
            if kind != own and not (only_more and kind & giving <= own):
                groups.setdefault(kind, []).append(name)
        return tuple(tuple(group) for group in groups.values())


def _context_names(expr: Expr) -> Iterator[str]:
    """The attributes of the context that are asked for; an empty name for the context itself."""
    if isinstance(expr, GetAttr | HasAttr) and expr.base == Var("context"):
        yield expr.attr
    elif expr == Var("context"):
        yield ""
    else:
        for child in children(expr):
            yield from _context_names(child)


_PURPOSE: Final = GetAttr(Var("context"), _CLAIM)


def _is_place(expr: Expr) -> bool:
    """``context.purpose in Purpose::"…"``, or in a list of them.

    Not ``==``: of two purposes in the same named ones, one may be the named one itself.
    """
    return (
        isinstance(expr, Binary)
        and expr.op == "in"
        and expr.left == _PURPOSE
        and _is_literal(expr.right)
    )


def _is_opaque(expr: Expr) -> bool:
    if _is_place(expr):
        return False
    return expr == _PURPOSE or any(_is_opaque(child) for child in children(expr))


def _is_growing(expr: Expr) -> bool:
    """Whether being in more named purposes can only make it true."""
    if isinstance(expr, And | Or):
        return _is_growing(expr.left) and _is_growing(expr.right)
    return _is_place(expr) or {_CLAIM, ""}.isdisjoint(_context_names(expr))


def _is_literal(expr: Expr) -> bool:
    if isinstance(expr, SetExpr):
        return all(_is_literal(item) for item in expr.items)
    return isinstance(expr, Literal) and isinstance(expr.value, EntityUid)


def break_glass(standing: Standing, categories: Iterable[str]) -> Obligation | None:
    """The emergency procedure, where a role held now has it for what was asked about."""
    open_ = tuple(sorted(standing.break_glass.intersection(categories)))
    return Obligation("break_glass", values=open_) if open_ else None
