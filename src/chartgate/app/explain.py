"""Why somebody may, or may not, and how much: the policies that decided, taken apart.

The rules kept: the answer is decided first, by the reference meaning, and the explanation is read
off the same evaluator for the same request (45 CFR 164.308(a)(4): who authorises access can say on
what grounds). A permit is shown with the assignment it was asked of; a forbid with the person as a
whole. A policy that cannot be evaluated is shown as that: a permit so is no permission, a forbid so
is in force.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from chartgate.app.explain_conjuncts import (
    Conjunct,
    Verdict,
    conjuncts_of,
    failing,
    judged,
    verdict_of,
)
from chartgate.app.explain_question import VIEWS, Judging, Question, Reached, decide, judging
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.cedar.ast import Expr, GetAttr, Policy, Var
from chartgate.cedar.evaluate import Env
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.targets.admissible import children


@dataclass(frozen=True, slots=True)
class Applied:
    """A policy beside one request: what it asks, one by one, and what came of each."""

    policy: Policy
    action: str
    label: str | None
    conjuncts: tuple[Conjunct, ...]
    assignment: Assignment | None = None
    """The assignment that a permit was asked of; None for a forbid, asked of the whole person."""

    @property
    def holds(self) -> bool:
        """Whether the policy is in force for the request."""
        verdicts = {c.verdict for c in self.conjuncts}
        if self.policy.effect == "permit":
            return verdicts <= {Verdict.HOLDS}
        # From the left: what is false ends the evaluation, what errs ends it too.
        first = next((c.verdict for c in self.conjuncts if c.verdict is not Verdict.HOLDS), None)
        return first in {None, Verdict.ERRS}

    @property
    def rank(self) -> int:
        """How much a permit gives, or from where a forbid bars: a level's number, or 1."""
        return int(VIEWS.get(self.action, 1))

    @property
    def failing(self) -> tuple[Conjunct, ...]:
        """What keeps a permit from holding."""
        return failing(self.conjuncts)


@dataclass(frozen=True, slots=True)
class LabelExplained:
    """One label of the record: what it comes to, and why not more."""

    label: str | None
    reached: Reached
    giving: tuple[Applied, ...]
    """The permits that give what is reached."""
    barring: tuple[Applied, ...]
    """The forbids in force between what is reached and what is asked."""
    nearest: tuple[Applied, ...]
    """The permits that would give more, those with the fewest failing conjuncts first."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer and its grounds."""

    person: Person
    question: Question
    reached: Reached
    labels: tuple[LabelExplained, ...]
    live: tuple[Assignment, ...]
    not_live: tuple[Assignment, ...]
    """Assignments that have ended or not begun: they count for nothing."""

    @property
    def as_asked(self) -> bool:
        """Whether all that was asked for is allowed."""
        return self.reached.rank >= self.question.wanted


def explain(version: PolicyVersion, person: Person, question: Question) -> Explanation:
    """The answer to one question about one person, and why."""
    ready = judging(version, person, question)
    labels: tuple[str | None, ...] = question.labels or (None,)
    return Explanation(
        person=person,
        question=question,
        reached=decide(ready, version.policies),
        labels=tuple(_label(version, ready, label) for label in labels),
        live=ready.live,
        not_live=tuple(a for a in person.assignments if a not in ready.live),
    )


def _label(version: PolicyVersion, ready: Judging, label: str | None) -> LabelExplained:
    alone = judging(version, ready.person, _only(ready.question, label))
    reached = decide(alone, version.policies)
    applied = list(_applied(version, ready, label))
    rank, wanted = reached.rank, ready.question.wanted
    permits = [a for a in applied if a.policy.effect == "permit"]
    forbids = [a for a in applied if a.policy.effect == "forbid" and a.holds]
    near: dict[str, Applied] = {}
    for one in permits:
        if one.rank > rank and not (one.holds and reached.refused is None):
            best = near.get(one.policy.id)
            if best is None or _distance(one) < _distance(best):
                near[one.policy.id] = one
    return LabelExplained(
        label=label,
        reached=reached,
        giving=tuple(a for a in permits if a.holds and a.rank >= rank > 0),
        barring=_once(a for a in forbids if rank < a.rank <= max(wanted, rank)),
        nearest=tuple(sorted(near.values(), key=_distance)),
    )


def _only(question: Question, label: str | None) -> Question:
    return question if label is None else replace(question, labels=(label,))


def _once(found: Iterator[Applied]) -> tuple[Applied, ...]:
    """A forbid that bars several levels is told once, at the lowest."""
    kept: dict[str, Applied] = {}
    for one in sorted(found, key=lambda a: a.rank):
        kept.setdefault(one.policy.id, one)
    return tuple(kept.values())


def _distance(applied: Applied) -> tuple[int, int, int, str]:
    missing = applied.failing
    return len(missing), sum(c.scope for c in missing), -applied.rank, applied.policy.id


def _applied(version: PolicyVersion, ready: Judging, label: str | None) -> Iterator[Applied]:
    """Every policy about this action and this category, beside the request."""
    hidden = ready.question.hidden
    for action in ready.question.actions():
        whole = ready.env(action, label)
        for policy in version.policies.policies:
            if policy.is_template or not _concerns(policy, action):
                continue
            if _about_another(policy, whole):
                continue
            if policy.effect == "forbid":
                yield Applied(policy, action, label, judged(policy, whole, hidden))
                continue
            # Without any assignment, the permit is asked of the person as she is.
            for number in range(len(ready.parts)) or (None,):
                env = whole if number is None else ready.env(action, label, number)
                held = None if number is None else ready.live[number]
                yield Applied(policy, action, label, judged(policy, env, hidden), held)


def _concerns(policy: Policy, action: str) -> bool:
    return policy.action.op == "all" or EntityUid("Action", action) in policy.action.entities


def _about_another(policy: Policy, env: Env) -> bool:
    """Whether the policy speaks of another category: nothing about it is near."""
    return any(
        _only_of_the_label(expr) and verdict_of(expr, env) is Verdict.FAILS
        for expr, _ in conjuncts_of(policy)
    )


def _only_of_the_label(expr: Expr) -> bool:
    """Whether a condition depends on the action and the category alone."""
    if isinstance(expr, GetAttr) and isinstance(expr.base, Var) and expr.base.name == "resource":
        return expr.attr == "category"
    if isinstance(expr, Var):
        return expr.name == "action"
    return all(_only_of_the_label(child) for child in children(expr))
