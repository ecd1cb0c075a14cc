"""What changes between two policy versions, over every request there can be.

The rule kept (45 CFR 164.308(a)(8), evaluation in response to change): for a role, an action and a
category, either some request is shown that the change newly allows (or denies), decided under both
versions by the reference meaning, or it is proved that there is none, or it is said to be unknown.

Both versions are asked about one and the same person, record and moment. What only one schema has
(an attribute, a category, a role) exists for the other and is never mentioned there; where the two
give one name two types, what changes is unknown.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar

from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.proof_example import Example
from chartgate.app.prover import Found, Prover, Target, Who, ground_of
from chartgate.cedar.ast import Expr, Literal
from chartgate.cedar.schema import Action, Attribute, EntityType, RecordType, Schema
from chartgate.model.disclosure import VIEW_ACTIONS
from chartgate.targets.smt.gate import Ground, Question, Shared
from chartgate.targets.smt.logic import Truth, agree, both, negated
from chartgate.targets.smt.solve import Nothing, Unknown
from chartgate.targets.smt.symbols import Unencodable, name_of
from chartgate.targets.smt.universe import Closed

_K = TypeVar("_K")


@dataclass(frozen=True, slots=True)
class Difference:
    """An example of what is newly allowed, and of what is newly denied: ``Example``; ``Nothing``
    where it is proved that there is none; ``Unknown`` with the reason."""

    newly_allowed: Found
    newly_denied: Found


class Comparison:
    """Two versions, and every question about what changes from the first to the second."""

    def __init__(
        self, before: PolicyVersion, after: PolicyVersion, *, now: datetime, timeout: float
    ) -> None:
        self.before: Final = before
        self.after: Final = after
        self._unlike = ""
        self._untouched: Final[dict[tuple[Who, str], bool]] = {}
        grounds = (ground_of(before), ground_of(after))
        try:
            grounds = _joined(*grounds)
        except Unencodable as reason:
            self._unlike = str(reason)
        shared: dict[Who, Shared] = {}
        self._old, self._new = (
            Prover(version, now=now, timeout=timeout, ground=ground, shared=shared)
            for version, ground in zip((before, after), grounds, strict=True)
        )

    def differences(
        self, role: str | None, action: str, category: str | None = None, *, others: bool = False
    ) -> Difference:
        """What changes for people of a role, for one action on records of one category.

        ``role``: ``None`` for people of any role. ``others``: they may hold other roles beside, as
        long as the permit comes from this one.
        """
        return Difference(
            self.newly_allowed(role, action, category, others=others),
            self.newly_denied(role, action, category, others=others),
        )

    def newly_allowed(
        self, role: str | None, action: str, category: str | None = None, *, others: bool = False
    ) -> Found:
        """What the second version allows and the first does not."""
        return self._newly(role, action, category, self._new, self._old, others=others)

    def newly_denied(
        self, role: str | None, action: str, category: str | None = None, *, others: bool = False
    ) -> Found:
        """What the first version allows and the second does not."""
        return self._newly(role, action, category, self._old, self._new, others=others)

    def _newly(
        self,
        role: str | None,
        action: str,
        category: str | None,
        allows: Prover,
        denies: Prover,
        *,
        others: bool,
    ) -> Found:
        if self._unlike:
            return Unknown(self._unlike)
        who = Who(() if role is None else (role,), others=others)
        if self._is_untouched(who, action):
            return Nothing()
        return self._search(who, action, category, allows, denies)

    def _is_untouched(self, who: Who, action: str) -> bool:
        """Whether both versions have the same policies about such people and such an action."""
        if (who, action) not in self._untouched:
            old, new = (self._about(prover, who, action) for prover in (self._old, self._new))
            self._untouched[who, action] = (
                old == new and self._old.ground.hierarchy == self._new.ground.hierarchy
            )
        return self._untouched[who, action]

    def _about(self, prover: Prover, who: Who, action: str) -> tuple[list[Expr], ...]:
        # A level of seeing is decided by the policies of all levels.
        actions = tuple(VIEW_ACTIONS.values()) if action in VIEW_ACTIONS.values() else (action,)
        try:
            return tuple(
                [p.condition() for p in prover.question(who, target).about(name, effect)]
                for target in prover.targets(actions)
                for name in target.actions
                for effect in ("permit", "forbid")
            )
        except Unencodable:
            # Equal to nothing: the search will say what could not be translated.
            return ([Literal(prover is self._old)],)

    def _search(
        self, who: Who, action: str, category: str | None, allows: Prover, denies: Prover
    ) -> Found:
        """A request that one version allows and the other does not."""
        found: Found = Unknown(f"no person asks {action} of such a thing")
        for target in allows.targets((action,), () if category is None else (category,)):
            found = _newly(who, target, allows, denies)
            if not isinstance(found, Nothing):
                return found
        return found


def _newly(who: Who, target: Target, allows: Prover, denies: Prover) -> Found:
    def wanted(question: Question, name: str) -> Truth:
        other = denies.question(question.scene.who, target)
        here, there = question.allowed(name), other.allowed(name)
        # The same formula over the same symbols: most cells need no solver.
        return False if agree(here, there) is True else both(here, negated(there))

    def stands(example: Example) -> bool:
        return _is_allowed(allows, example) and not _is_allowed(denies, example)

    return allows.search(who, target, wanted, stands)


def _is_allowed(prover: Prover, example: Example) -> bool:
    return example.is_allowed(prover.version.policies, prover.version.roles)


def _joined(before: Ground, after: Ground) -> tuple[Ground, Ground]:
    """Both grounds over one schema, and over the roles and purposes of either."""
    schema = _joined_schemas(before.schema, after.schema)
    closed: Closed = {
        kind: {
            name: before.closed[kind].get(name, frozenset())
            | after.closed[kind].get(name, frozenset())
            for name in {**before.closed[kind], **after.closed[kind]}
        }
        for kind in before.closed
    }
    texts = before.texts or after.texts
    one, other = (
        replace(g, schema=schema, closed=closed, hierarchy=g.closed, texts=texts)
        for g in (before, after)
    )
    return one, other


def _joined_schemas(before: Schema, after: Schema) -> Schema:
    entities = _union(before.entities, after.entities, _joined_types)
    actions = _union(before.actions, after.actions, _joined_actions)
    return replace(after, entities=entities, actions=actions)


def _joined_types(one: EntityType, other: EntityType) -> EntityType:
    if (one.enum is None) != (other.enum is None):
        raise Unencodable(f"{one.name} is an enumeration in one version and not in the other")
    enum = None
    if one.enum is not None and other.enum is not None:
        enum = tuple(dict.fromkeys((*one.enum, *other.enum)))
    return EntityType(
        one.name,
        _joined_attributes(one.name, one.attributes, other.attributes),
        one.parents | other.parents,
        other.tags or one.tags,
        enum,
    )


def _joined_actions(one: Action, other: Action) -> Action:
    return Action(
        one.uid,
        tuple(dict.fromkeys((*one.principals, *other.principals))),
        tuple(dict.fromkeys((*one.resources, *other.resources))),
        RecordType(
            _joined_attributes(
                f"the context of {one.uid.id}", one.context.attributes, other.context.attributes
            )
        ),
        one.parents | other.parents,
    )


def _joined_attributes(
    where: str, one: Mapping[str, Attribute], other: Mapping[str, Attribute]
) -> Mapping[str, Attribute]:
    def join(a: Attribute, b: Attribute) -> Attribute:
        if name_of(a.type) != name_of(b.type):
            raise Unencodable(f"an attribute of {where} has one type before and another after")
        return Attribute(a.type, a.required and b.required)

    return _union(one, other, join)


_V = TypeVar("_V")


def _union(
    one: Mapping[_K, _V], other: Mapping[_K, _V], join: Callable[[_V, _V], _V]
) -> Mapping[_K, _V]:
    both_ = {**one, **other}
    return {
        name: join(one[name], other[name]) if name in one and name in other else value
        for name, value in both_.items()
    }
