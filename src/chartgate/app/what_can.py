"""What one person may: every action on every category, for every purpose she may claim, and for
which records.

The rules kept: it is the same answer as "who can", asked for one person and everything (the same
code decides both), so the two cannot disagree; nothing is cut short. Nothing is assumed about a
record: the conditions that are left are told in words.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from chartgate.app.explain_question import VIEWS, Question
from chartgate.app.explain_reduced import Ground
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.who_can import Holding, who_can
from chartgate.cedar.ast import Policy, PolicySet
from chartgate.cedar.schema import Schema
from chartgate.model.principal import EntityUid, Person


@dataclass(frozen=True, slots=True)
class Ability:
    """One action on one category (None: the audit log or the policy store), and what the person may of it."""

    action: str
    category: str | None
    holding: Holding


@dataclass(frozen=True, slots=True)
class Grouped:
    """Abilities that differ in the category alone."""

    action: str
    categories: tuple[str, ...]
    holding: Holding


def what_can(
    version: PolicyVersion, person: Person, *, at: datetime, source: str = "explain"
) -> tuple[Ability, ...]:
    """Everything the person may, action by action and category by category."""
    hers = Ground(_about(version, person, at))
    return tuple(
        Ability(question.action, category, holding)
        for category, question in _questions(version.schema, at, source)
        for holder in who_can(hers, (person,), question, {})
        for holding in holder.holdings
    )


def _questions(schema: Schema, at: datetime, source: str) -> Iterable[tuple[str | None, Question]]:
    for uid, action in schema.actions.items():
        # One question of `view` answers for all three levels.
        if uid.id in VIEWS and uid.id != "view":
            continue
        if "Record" in action.resources:
            category = schema.entities.get("Category")
            for name in (category.enum if category is not None else None) or ():
                yield name, Question(uid.id, (name,), "", at, source=source)
        else:
            yield None, Question(uid.id, (), "", at, source=source)


def _about(version: PolicyVersion, person: Person, at: datetime) -> PolicyVersion:
    """The same policies without those that are for other roles than hers, now or later."""
    hierarchy = version.roles.entities()
    roles = {a.role for a in person.assignments if a.valid_until is None or a.valid_until > at}
    below = frozenset().union(*(hierarchy.ancestors(EntityUid("Role", r)) for r in roles))
    kept = tuple(p for p in version.policies.policies if _may_concern(p, below))
    return replace(version, policies=PolicySet(kept, version.policies.hash))


def _may_concern(policy: Policy, below: frozenset[EntityUid]) -> bool:
    if policy.principal.op != "in":
        return True
    named = [e for e in policy.principal.entities if isinstance(e, EntityUid)]
    return any(e in below or e.type != "Role" for e in named)


def grouped(abilities: Iterable[Ability]) -> tuple[Grouped, ...]:
    """The same, with the categories of one answer told together, in the order they came."""
    found: dict[object, list[Ability]] = {}
    for one in abilities:
        found.setdefault((one.action, _alike(one.holding)), []).append(one)
    return tuple(
        Grouped(
            same[0].action,
            tuple(one.category for one in same if one.category is not None),
            replace(
                same[0].holding,
                policies=tuple(dict.fromkeys(p for one in same for p in one.holding.policies)),
            ),
        )
        for same in found.values()
    )


def _alike(holding: Holding) -> Holding:
    """What must be the same for two categories to be told together: all but the policies."""
    return replace(holding, policies=())
