"""Policies, read as filters: for one person and one label, which rows at which level.

A permit implies the lower levels; a level counts only where no forbid at or below it is satisfied
(or could not be evaluated):

    at least l  =  (some permit of a level >= l is true)  and  (every forbid of a level <= l is false)
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from chartgate.cedar.ast import Policy
from chartgate.cedar.evaluate import Env, EvaluationError, evaluate
from chartgate.model.disclosure import VIEW_ACTIONS, Disclosure
from chartgate.model.principal import EntityUid
from chartgate.targets.formula import ALWAYS, NEVER, Formula, conjunction, disjunction
from chartgate.targets.partial import Known, specialise

LEVELS: Final = (Disclosure.MASKED, Disclosure.SUMMARY, Disclosure.FULL)
Ask = Callable[[str, str], Known]
"""(action, label) -> what is known when that is asked."""


@dataclass(frozen=True, slots=True)
class Asks:
    """For whom the policies are asked: a person with all her assignments, and with each alone.

    A role counts in the department it is held in: a permit must hold for one assignment by itself.
    A forbid is asked of the person as a whole, since what nobody may combine, nobody may combine.
    """

    whole: Ask
    parts: tuple[Ask, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """When something is allowed, and the policies that make it so."""

    formula: Formula
    determining: frozenset[str]


@dataclass(frozen=True, slots=True)
class LabelRules:
    """For one label: when its level is at least masked, summary, full."""

    at_least: Mapping[Disclosure, Rule]


class PolicyIndex:
    """Policies by the action they speak of."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._policies: Final = tuple(policies)
        self._by_action: Final[dict[str, tuple[Policy, ...]]] = {}

    def of_whom(self, env: Env) -> "PolicyIndex":
        """The policies whose scope admits the principal; the others are false whatever is asked,
        since the scope comes first."""
        return PolicyIndex(p for p in self._policies if not _is_false(p, env))

    def of(self, action: str) -> tuple[Policy, ...]:
        """Every policy that can concern the action, in file order."""
        found = self._by_action.get(action)
        if found is None:
            found = tuple(p for p in self._policies if _concerns(p, action))
            self._by_action[action] = found
        return found

    def label(self, label: str, asks: Asks) -> LabelRules:
        """The rules of one label, for whoever ``asks`` speak for."""
        permits: dict[Disclosure, list[Rule]] = {}
        forbids: dict[Disclosure, list[Rule]] = {}
        for level in LEVELS:
            permits[level], forbids[level] = self._rules(VIEW_ACTIONS[level], label, asks)
        return LabelRules(
            {
                level: _combined(
                    (rule for higher in LEVELS if higher >= level for rule in permits[higher]),
                    (rule for lower in LEVELS if lower <= level for rule in forbids[lower]),
                )
                for level in LEVELS
            }
        )

    def action(self, action: str, label: str, asks: Asks) -> Rule:
        """When one action (create, update, delete) is allowed on rows with the label."""
        return _combined(*self._rules(action, label, asks))

    def _rules(self, action: str, label: str, asks: Asks) -> tuple[list[Rule], list[Rule]]:
        whole = asks.whole(action, label)
        parts = [ask(action, label) for ask in asks.parts] or [whole]
        permits, forbids = [], []
        for policy in self.of(action):
            if policy.effect == "permit":
                given = disjunction(specialise(policy.condition(), part).true for part in parts)
                if given != NEVER:
                    permits.append(Rule(given, frozenset({policy.id})))
            else:
                spared = specialise(policy.condition(), whole).false
                if spared != ALWAYS:
                    forbids.append(Rule(spared, frozenset({policy.id})))
        return permits, forbids


def _concerns(policy: Policy, action: str) -> bool:
    if policy.action.op == "all":
        return True
    return EntityUid("Action", action) in policy.action.entities


def _is_false(policy: Policy, env: Env) -> bool:
    try:
        return evaluate(policy.principal.expression("principal"), env) is False
    except EvaluationError:
        return False


def _combined(permits: Iterable[Rule], forbids: Iterable[Rule]) -> Rule:
    given, taken = tuple(permits), tuple(forbids)
    permitted = disjunction(rule.formula for rule in given)
    formula = conjunction((permitted, *(rule.formula for rule in taken)))
    # Nothing is forbidden that was not permitted: without a permit, none of them determines.
    if permitted == NEVER:
        return Rule(NEVER, frozenset())
    return Rule(formula, frozenset().union(*(rule.determining for rule in (*given, *taken))))
