"""Invariants proved: for every claim a verdict, the time it took, and what breaks it.

The rule kept (45 CFR 164.308(a)(8), evaluation): a verdict says exactly what was claimed, over
which people and requests; ``chartgate.app.prover`` says what the three verdicts mean.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations, pairwise
from typing import Final
from typing import Literal as OneOf

from chartgate.app.ceilings import Cell, ceilings_of, prove_ceilings
from chartgate.app.invariants import Invariant, invariants_of
from chartgate.app.policy_bundle import CEILINGS, PolicyVersion
from chartgate.app.proof_example import Example
from chartgate.app.proof_words import claimed
from chartgate.app.prover import Found, Prover, Stands, Target, Wanted, Who
from chartgate.cedar.ast import Expr, Policy
from chartgate.model.disclosure import VIEW_ACTIONS, Disclosure
from chartgate.targets.smt.gate import Question
from chartgate.targets.smt.logic import Truth, agree, all_of, any_of, both, either, implies, negated
from chartgate.targets.smt.solve import Nothing, Unknown

Verdict = OneOf["proved", "violated", "unknown"]
_ANYONE: Final = Who()
_ALONE: Final = Who(others=False, only=True)
_LEVELS: Final = {action: level for level, action in VIEW_ACTIONS.items()}


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of an invariant.

    ``claimed`` says precisely what was searched for; ``why`` is the counterexample in words, or
    what kept it from being decided. ``scenario`` is the counterexample as a ``[[scenario]]`` that
    expects what should hold, where a scenario can say it.
    """

    invariant: Invariant
    verdict: Verdict
    claimed: str
    seconds: float
    why: str = ""
    example: Example | None = None
    scenario: str | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    verdict: Verdict
    why: str = ""
    example: Example | None = None
    expect: str = ""


_PROVED: Final = _Outcome("proved")
_EMPTY: Final = _Outcome("unknown", "no request meets its conditions, so that it claims nothing")


def prover_of(
    version: PolicyVersion, invariants: Iterable[Invariant], *, now: datetime, timeout: float
) -> Prover:
    """A prover that knows every condition the invariants will ask about."""
    extra: list[Expr] = []
    for i in invariants:
        extra += [e for e in (i.when, i.unless) if e is not None]
        extra += [e for _, e in i.expressions]
    return Prover(version, now=now, timeout=timeout, extra=extra)


def prove(
    prover: Prover,
    invariants: Iterable[Invariant],
    *,
    clock: Callable[[], float],
    progress: Callable[[Proof], None] = lambda _: None,
) -> tuple[Proof, ...]:
    """The verdict on every invariant, in order."""
    proofs = []
    for invariant in invariants:
        started = clock()
        claim = _Claim(prover, invariant)
        outcome = claim.outcome()
        scenario = None
        if outcome.example is not None and outcome.expect:
            title = f"{invariant.words} ({invariant.id})"
            scenario = outcome.example.scenario(title, outcome.expect, invariant.clause)
        proof = Proof(
            invariant,
            outcome.verdict,
            claim.claimed(),
            clock() - started,
            outcome.why,
            outcome.example,
            scenario,
        )
        proofs.append(proof)
        progress(proof)
    return tuple(proofs)


@dataclass(frozen=True, slots=True)
class VersionProofs:
    """Everything that a policy version claims, and what came of it."""

    proofs: tuple[Proof, ...]
    cells: tuple[Cell, ...]

    @property
    def passed(self) -> bool:
        """Whether all of it is proved: what is unknown is not."""
        verdicts = [*(p.verdict for p in self.proofs), *(c.verdict for c in self.cells)]
        return all(verdict == "proved" for verdict in verdicts)

    @property
    def summary(self) -> str:
        """How much was proved, and the first thing that was not."""
        for p in self.proofs:
            if p.verdict != "proved":
                return f"{p.invariant.id} is {p.verdict}: {p.why}"
        for c in self.cells:
            if c.verdict != "proved":
                return f"{c.role}: {c.category} at most {c.ceiling.label} is {c.verdict}: {c.why}"
        return f"{len(self.proofs)} invariants and {len(self.cells)} ceilings, all proved"


def prove_version(
    version: PolicyVersion,
    *,
    now: datetime,
    timeout: float = 10.0,
    clock: Callable[[], float] = lambda: 0.0,
) -> VersionProofs:
    """All invariants and ceilings of a version. ``timeout`` bounds each question, in seconds."""
    invariants = invariants_of(version)
    prover = prover_of(version, invariants, now=now, timeout=timeout)
    ceilings = ceilings_of(version) if CEILINGS in version.bundle.files else {}
    return VersionProofs(
        prove(prover, invariants, clock=clock), prove_ceilings(prover, ceilings, clock=clock)
    )


class _Claim:
    """One invariant: the searches it takes, and what their results mean."""

    def __init__(self, prover: Prover, invariant: Invariant) -> None:
        self._prover = prover
        self._i = invariant
        self._version = prover.version
        self._roles = prover.version.roles

    def outcome(self) -> _Outcome:
        match self._i.claim:
            case "never" | "at_most" | "always":
                return self._about_requests()
            case "equivalent" | "implies" | "disjoint":
                return self._comparing()
            case "never_errors":
                return self._never_errors()
            case "not_vacuous":
                return self._each(self._is_alive, "holds for no request")
            case "not_shadowed":
                return self._each(self._matters, "changes no answer")

    # --- never, at_most, always ---------------------------------------------------------------

    def _actions(self) -> tuple[str, ...]:
        i = self._i
        if i.claim == "at_most":
            assert i.level is not None
            return (VIEW_ACTIONS[Disclosure(i.level + 1)],)
        return i.actions or self._prover.all_actions()

    def _who(self) -> Who:
        return Who(self._i.roles, others=self._i.held == "with_others" or not self._i.roles)

    def _about_requests(self) -> _Outcome:
        # never: of the whole person, whether she meets the condition; always: of the assignment,
        # because it is the assignment that gives.
        i, part = self._i, self._i.claim == "always"

        def within(question: Question, action: str) -> Truth:
            parts: list[Truth] = []
            if i.when is not None:
                parts.append(question.meets(i.when, action, whole=not part))
            if i.unless is not None:
                parts.append(negated(question.meets(i.unless, action, whole=not part)))
            return all_of(parts)

        def is_within(example: Example) -> bool:
            met = i.when is None or example.meets(i.when, self._roles, part=part)
            return met and not (
                i.unless is not None and example.meets(i.unless, self._roles, part=part)
            )

        def broken(question: Question, action: str) -> Truth:
            allowed = question.allowed(action)
            return both(negated(allowed) if part else allowed, within(question, action))

        def stands(example: Example) -> bool:
            return self._is_allowed(example) is not part and is_within(example)

        targets = self._prover.targets(self._actions(), i.categories)
        for target in targets:
            found = self._search(self._who(), target, broken, stands)
            if not isinstance(found, Nothing):
                return self._broken(found)
        if i.when is None and i.unless is None:
            return _PROVED
        met = self._prover.are_possible(self._who(), targets, within, is_within)
        if isinstance(met, Nothing):
            return _EMPTY
        return _Outcome("unknown", met.why) if isinstance(met, Unknown) else _PROVED

    def _broken(self, found: Found) -> _Outcome:
        if isinstance(found, Unknown):
            return _Outcome("unknown", found.why)
        assert isinstance(found, Example)
        words = found.words(self._version.policies, self._roles)
        return _Outcome("violated", words, found, self._expected(found))

    def _expected(self, example: Example) -> str:
        """What a scenario of the counterexample should expect."""
        level = _LEVELS.get(example.action)
        if self._i.claim == "always":
            return "allowed" if level is None else level.label
        if level is None:
            return "refused"
        if self._i.level is not None:
            return self._i.level.label
        asked = [_LEVELS[a] for a in self._actions() if a in _LEVELS]
        return Disclosure(min(asked) - 1).label

    # --- comparisons --------------------------------------------------------------------------

    def _comparing(self) -> _Outcome:
        sides = [_Side(name, None, e) for name, e in self._i.expressions]
        sides += [_Side(name, self._policy(name), None) for name in self._i.policies]
        pairs = combinations(sides, 2) if self._i.claim == "disjoint" else pairwise(sides)
        for left, right in pairs:
            for target in self._prover.targets(self._i.actions or self._prover.all_actions()):
                found = self._compare(left, right, target)
                if isinstance(found, Unknown):
                    return _Outcome("unknown", found.why)
                if isinstance(found, Example):
                    return _Outcome("violated", self._differ(left, right, found), found)
        return _PROVED

    def _compare(self, left: "_Side", right: "_Side", target: Target) -> Found:
        relation = self._i.claim

        def broken(question: Question, action: str) -> Truth:
            a, b = left.truth(question, action), right.truth(question, action)
            if relation == "equivalent":
                return negated(agree(a, b))
            return negated(implies(a, b)) if relation == "implies" else both(a, b)

        def stands(example: Example) -> bool:
            a, b = left.holds(example, self._prover), right.holds(example, self._prover)
            if relation == "equivalent":
                return a is not b
            return a and (not b if relation == "implies" else b)

        return self._search(_ANYONE, target, broken, stands)

    def _differ(self, left: "_Side", right: "_Side", example: Example) -> str:
        holding = [s.name for s in (left, right) if s.holds(example, self._prover)]
        words = example.words(self._version.policies, self._roles)
        return f"{' and '.join(holding) or 'neither'} holds here: {words}"

    # --- policies -----------------------------------------------------------------------------

    def _policies(self) -> tuple[Policy, ...]:
        if self._i.policies:
            return tuple(self._policy(name) for name in self._i.policies)
        return self._version.policies.policies

    def _policy(self, name: str) -> Policy:
        return next(p for p in self._version.policies.policies if p.id == name)

    def _never_errors(self) -> _Outcome:
        policies = self._policies()
        for target in self._prover.targets(self._prover.all_actions()):
            found = self._search(
                _ANYONE,
                target,
                lambda question, action: any_of(question.fails(p, action) for p in policies),
                lambda example: any(example.fails(p, self._roles) for p in policies),
            )
            if isinstance(found, Unknown):
                return _Outcome("unknown", found.why)
            if isinstance(found, Example):
                failing = [p.id for p in policies if found.fails(p, self._roles)]
                words = found.words(self._version.policies, self._roles)
                return _Outcome(
                    "violated", f"{', '.join(failing)} cannot be evaluated: {words}", found
                )
        return _PROVED

    def _each(self, ask: Callable[[Policy], Found], fault: str) -> _Outcome:
        """Each policy must have an example."""
        without: list[str] = []
        for policy in self._policies():
            found = ask(policy)
            if isinstance(found, Unknown):
                return _Outcome("unknown", f"{policy.id}: {found.why}")
            if isinstance(found, Nothing):
                without.append(policy.id)
        if without:
            return _Outcome("violated", f"{', '.join(without)}: {fault}")
        return _PROVED

    def _is_alive(self, policy: Policy) -> Found:
        """A request for which the policy holds; a permit for a single assignment."""
        permit = policy.effect == "permit"
        return self._first(
            policy,
            (_ALONE if permit else _ANYONE,),
            lambda question, action: question.holds(policy, action),
            lambda example: example.counts(policy, self._roles, part=permit),
        )

    def _matters(self, policy: Policy) -> Found:
        """A request that is answered otherwise without the policy."""
        rest = tuple(p for p in self._version.policies.policies if p.id != policy.id)
        without = type(self._version.policies)(rest, self._version.policies.hash)

        def differs(question: Question, action: str) -> Truth:
            with_, but = question.allowed(action), question.allowed(action, but=policy.id)
            return negated(agree(with_, but))

        def stands(example: Example) -> bool:
            return self._is_allowed(example) is not example.is_allowed(without, self._roles)

        # With one assignment the question is exact; with several, other assignments could permit
        # what this policy does, so a request that was found may fall, and none found is a proof.
        return self._first(policy, (_ALONE, _ANYONE), differs, stands)

    def _first(self, policy: Policy, whom: Iterable[Who], wanted: Wanted, stands: Stands) -> Found:
        """Some request of any kind that the policy is about."""
        last: Found = Nothing()
        for who in whom:
            for target in self._prover.targets(self._prover.all_actions()):
                found = self._search(who, target, wanted, stands, about=policy)
                if isinstance(found, Example):
                    return found
                if isinstance(found, Unknown):
                    last = found
        return last

    # --- shared -------------------------------------------------------------------------------

    def _is_allowed(self, example: Example) -> bool:
        return example.is_allowed(self._version.policies, self._roles)

    def _search(
        self,
        who: Who,
        target: Target,
        broken: Wanted,
        stands: Stands,
        *,
        about: Policy | None = None,
    ) -> Found:
        def wanted(question: Question, action: str) -> Truth:
            if about is not None and not question.is_about(about, action):
                return False
            return broken(question, action)

        # Where an example is all that is asked for, any will do.
        return self._prover.search(who, target, wanted, stands, plain=about is None)

    def claimed(self) -> str:
        """What was searched for, precisely."""
        return claimed(self._i)


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the things that are compared: a policy, or an expression."""

    name: str
    policy: Policy | None
    expression: Expr | None

    def truth(self, question: Question, action: str) -> Truth:
        if self.policy is None:
            assert self.expression is not None
            return question.meets(self.expression, action, whole=True)
        true = question.meets(self.policy.condition(), action, whole=True)
        if self.policy.effect == "forbid":
            return either(true, question.fails(self.policy, action))
        return true

    def holds(self, example: Example, prover: Prover) -> bool:
        if self.policy is None:
            assert self.expression is not None
            return example.meets(self.expression, prover.version.roles, part=False)
        return example.counts(self.policy, prover.version.roles, part=False)
