"""How much of a cell a person sees, in plain words: the meaning that every faster reading must equal.

The rule kept (45 CFR 164.502(b), minimum necessary): the levels full > summary > masked are
decided as the actions ``view``, ``view_summary``, ``view_masked``, and

    a level is reached  ⇔  some permit holds for an action of that level or a higher one,
                           and no forbid holds for the action of that level or a lower one.

The cell's level is the highest level reached. A forbid that cannot be evaluated holds; a permit
that cannot be evaluated does not. Of several labels the lowest level counts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from chartgate.cedar.ast import Policy, PolicySet
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.evaluate import Env, EvaluationError, evaluate
from chartgate.cedar.values import Value
from chartgate.model.disclosure import VIEW_ACTIONS, Disclosure
from chartgate.model.principal import EntityUid

RECORD: Final = EntityUid("Record", "asked")
"""The record a question is about: one request knows one record, so its name carries no data."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, in which circumstances: the same for every record of a statement."""

    policies: PolicySet
    entities: Entities
    principal: EntityUid
    context: Mapping[str, Value]
    parts: tuple[Entities, ...] = ()
    """The principal with each of her assignments alone; a permit must hold for one of them."""


@dataclass(frozen=True, slots=True)
class LevelAnswer:
    """A level and the ids of the policies that made it: the permits that grant it, then the
    forbids that keep it from being higher."""

    level: Disclosure
    determining: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ActionAnswer:
    """Whether an action is allowed, and the ids of the policies that decided."""

    allowed: bool
    determining: tuple[str, ...]


def level_of(asking: Asking, record: Mapping[str, Value], category: str) -> LevelAnswer:
    """The level at which one label of a record is seen; ``record`` holds its other attributes."""
    seen = {level: _holding(asking, action, record, category) for level, action in _LADDER}

    def reached(level: Disclosure) -> bool:
        granted = any(permits for at, (permits, _) in seen.items() if at >= level)
        barred = any(forbids for at, (_, forbids) in seen.items() if at <= level)
        return granted and not barred

    level = max((at for at in seen if reached(at)), default=Disclosure.WITHHELD)
    top = max((at for at, (permits, _) in seen.items() if permits), default=Disclosure.WITHHELD)
    granting = [seen[at][0] for at in seen if at >= level > Disclosure.WITHHELD]
    barring = [seen[at][1] for at in seen if level < at <= top]
    return LevelAnswer(level, _ids([*granting, *barring]))


def level_of_labels(
    asking: Asking, record: Mapping[str, Value], categories: Iterable[str]
) -> LevelAnswer:
    """The level of a cell with several labels: the lowest. A cell without a label is withheld."""
    answers = [level_of(asking, record, category) for category in categories]
    if not answers:
        return LevelAnswer(Disclosure.WITHHELD, ())
    lowest = min(answer.level for answer in answers)
    return LevelAnswer(lowest, _ids([a.determining for a in answers if a.level == lowest]))


def may_change(
    asking: Asking, action: str, record: Mapping[str, Value], categories: Iterable[str]
) -> ActionAnswer:
    """Whether ``create``, ``update``, ``delete`` or ``export`` is allowed on a record.

    Every label must allow it: that of the column, those of the row and of the patient. A record
    without a label is refused.
    """
    allowing: list[tuple[str, ...]] = []
    for category in categories:
        permits, forbids = _holding(asking, action, record, category)
        if not permits or forbids:
            return ActionAnswer(False, forbids if permits else ())
        allowing.append(permits)
    return ActionAnswer(bool(allowing), _ids(allowing))


def may_read_log(asking: Asking, action: str) -> ActionAnswer:
    """Whether ``read_audit`` or ``read_audit_technical`` is allowed on the audit log."""
    return _may(asking, action, EntityUid("AuditLog", "log"))


def may_govern(asking: Asking, action: str) -> ActionAnswer:
    """Whether ``edit_policy``, ``approve_policy`` or ``activate_policy`` is allowed."""
    return _may(asking, action, EntityUid("PolicyStore", "store"))


def _may(asking: Asking, action: str, resource: EntityUid) -> ActionAnswer:
    permits, forbids = _split(asking, action, resource, ())
    allowed = bool(permits) and not forbids
    return ActionAnswer(allowed, permits if allowed else forbids if permits else ())


_LADDER: Final = tuple((level, VIEW_ACTIONS[level]) for level in sorted(VIEW_ACTIONS))


def _holding(
    asking: Asking, action: str, record: Mapping[str, Value], category: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The permits and the forbids that hold for one action on one label of a record."""
    attributes = {**record, "category": EntityUid("Category", category)}
    return _split(asking, action, RECORD, (Entity(RECORD, attributes),))


def _split(
    asking: Asking, action: str, resource: EntityUid, extra: tuple[Entity, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    def env(entities: Entities) -> Env:
        return Env(
            asking.principal,
            EntityUid("Action", action),
            resource,
            asking.context,
            entities.with_(*extra),
        )

    whole = env(asking.entities)
    parts = [env(entities) for entities in asking.parts] or [whole]
    policies = asking.policies.policies
    permits = tuple(
        p.id for p in policies if p.effect == "permit" and any(_holds(p, part) for part in parts)
    )
    forbids = tuple(p.id for p in policies if p.effect == "forbid" and _holds(p, whole))
    return permits, forbids


def _holds(policy: Policy, env: Env) -> bool:
    if policy.is_template:
        return False
    try:
        return evaluate(policy.condition(), env) is True
    except EvaluationError:
        # Cedar would skip it: a forbid that fails must not open what it was written to close.
        return policy.effect == "forbid"


def _ids(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(policy_id for group in groups for policy_id in group))
