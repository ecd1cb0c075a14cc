"""What decided nothing: policies that no scenario reaches, or that the recorded past never used.

The rules kept: a policy counts as used when a decision named it among those that determined it; one
that never was is untested, or without effect, and somebody should know (45 CFR 164.308(a)(8),
evaluation; 164.316(b)(2)(iii), documents are kept up to date). What was decided under another policy
set is counted apart: the same name may have meant another text.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from chartgate.app.scenarios import Result
from chartgate.cedar.ast import Policy, PolicySet


@dataclass(frozen=True, slots=True)
class PolicyUse:
    """One policy, and what reached it."""

    id: str
    effect: str
    place: str
    clauses: tuple[str, ...]
    count: int
    """Scenarios or recorded decisions under this policy set that it determined."""
    titles: tuple[str, ...] = ()
    """The scenarios' titles."""
    last: datetime | None = None
    """When it last determined a recorded decision."""
    elsewhere: int = 0
    """Recorded decisions that name it under other policy sets."""


@dataclass(frozen=True, slots=True)
class ClauseUse:
    """One clause of a rule book, over the policies that cite it."""

    clause: str
    policies: int
    used: int
    count: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """Every policy of a set, used or not; ``asked`` is how many scenarios or decisions there were."""

    asked: int
    policies: tuple[PolicyUse, ...]
    unknown: Mapping[str, int] = field(default_factory=dict)
    """Names in the log that this set does not have: since removed, or generated for a grant."""

    @property
    def unused(self) -> tuple[PolicyUse, ...]:
        """Those that decided nothing."""
        return tuple(p for p in self.policies if not p.count)

    @property
    def clauses(self) -> tuple[ClauseUse, ...]:
        """The same, clause by clause."""
        found: dict[str, list[PolicyUse]] = {}
        for policy in self.policies:
            for clause in policy.clauses:
                found.setdefault(clause, []).append(policy)
        return tuple(
            ClauseUse(
                clause, len(some), sum(1 for p in some if p.count), sum(p.count for p in some)
            )
            for clause, some in sorted(found.items())
        )


def clauses_of(policy: Policy) -> tuple[str, ...]:
    """The clauses a policy cites: ``@clause("164.501; 164.508(a)(2)")`` cites two."""
    parts = (policy.annotation("clause") or "").split(";")
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def over_scenarios(results: Iterable[Result], policies: PolicySet) -> Coverage:
    """Which policies the scenarios reach."""
    titles: dict[str, list[str]] = {}
    asked = 0
    for result in results:
        asked += 1
        for policy_id in result.determining:
            titles.setdefault(policy_id, []).append(result.scenario.title)
    return Coverage(
        asked,
        tuple(
            PolicyUse(
                id=policy.id,
                effect=policy.effect,
                place=str(policy.origin),
                clauses=clauses_of(policy),
                count=len(titles.get(policy.id, ())),
                titles=tuple(titles.get(policy.id, ())),
            )
            for policy in policies.policies
        ),
    )


@dataclass(frozen=True, slots=True)
class Recorded:
    """One decision of the log: when, under which policy set, by which policies."""

    at: datetime
    policy_set: str
    determining: tuple[str, ...]


def over_log(decisions: Iterable[Recorded], policies: PolicySet) -> Coverage:
    """Which policies the recorded decisions rest on."""
    counts: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    last: dict[str, datetime] = {}
    asked = 0
    for one in decisions:
        asked += 1
        of_this = one.policy_set == policies.hash
        for policy_id in one.determining:
            if of_this:
                counts[policy_id] += 1
                last[policy_id] = max(one.at, last.get(policy_id, one.at))
            else:
                elsewhere[policy_id] += 1
    known = {policy.id for policy in policies.policies}
    return Coverage(
        asked,
        tuple(
            PolicyUse(
                id=policy.id,
                effect=policy.effect,
                place=str(policy.origin),
                clauses=clauses_of(policy),
                count=counts[policy.id],
                last=last.get(policy.id),
                elsewhere=elsewhere[policy.id],
            )
            for policy in policies.policies
        ),
        {name: counts[name] + elsewhere[name] for name in sorted({*counts, *elsewhere} - known)},
    )
