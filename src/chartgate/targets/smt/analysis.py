"""What can be said of policies over every request of a kind, as Cedar itself decides.

Cedar's own semantics (an error skips a policy), on any entity data that fits the schema; what the
gate decides is in ``gate``. Each question is the search for a request that answers no; such a
request is replayed in the reference evaluator before it is believed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from chartgate.cedar.ast import Policy
from chartgate.cedar.authorize import authorize
from chartgate.cedar.evaluate import Env, EvaluationError, evaluate
from chartgate.cedar.schema import Schema
from chartgate.targets.smt.encode import Encoder
from chartgate.targets.smt.logic import Truth, agree, any_of, both, implies, negated
from chartgate.targets.smt.model import Reading
from chartgate.targets.smt.requests import AnyRequest, RequestKind, uses_texts
from chartgate.targets.smt.sets import Sets
from chartgate.targets.smt.solve import Nothing, Unknown, satisfiable
from chartgate.targets.smt.symbols import Unencodable
from chartgate.targets.smt.universe import Closed, Universe


@dataclass(frozen=True, slots=True)
class Proved:
    """It holds for every request of the kind."""


@dataclass(frozen=True, slots=True)
class Refuted:
    """It does not hold for this request; the reference evaluator says so too."""

    request: Env


Verdict: TypeAlias = Proved | Refuted | Unknown
Policies: TypeAlias = Sequence[Policy]


class Analysis:
    """Questions about policies, for one kind of request of one schema."""

    def __init__(
        self,
        schema: Schema,
        kind: RequestKind,
        *,
        closed: Closed | None = None,
        timeout_ms: int = 10_000,
    ) -> None:
        self._schema = schema
        self._kind = kind
        self._closed = closed or {}
        self._timeout_ms = timeout_ms

    def never_errors(self, policy: Policy) -> Verdict:
        """Whether the policy has a value for every request."""
        return self._search(
            [policy],
            lambda seen: seen.encoder.holds(policy.condition())[1],
            lambda env: _holds(policy, env) is None,
        )

    def always_matches(self, policy: Policy) -> Verdict:
        """Whether the policy holds for every request."""
        return self._search(
            [policy],
            lambda seen: negated(seen.encoder.holds(policy.condition())[0]),
            lambda env: _holds(policy, env) is not True,
        )

    def never_matches(self, policy: Policy) -> Verdict:
        """Whether the policy holds for no request."""
        return self._search(
            [policy],
            lambda seen: seen.encoder.holds(policy.condition())[0],
            lambda env: _holds(policy, env) is True,
        )

    def always_allows(self, policies: Policies) -> Verdict:
        """Whether every request is allowed."""
        return self._search(
            policies,
            lambda seen: negated(seen.allowed(policies)),
            lambda env: not _allowed(policies, env),
        )

    def always_denies(self, policies: Policies) -> Verdict:
        """Whether no request is allowed."""
        return self._search(
            policies, lambda seen: seen.allowed(policies), lambda env: _allowed(policies, env)
        )

    def equivalent(self, left: Policies, right: Policies) -> Verdict:
        """Whether both allow the same requests."""
        return self._search(
            [*left, *right],
            lambda seen: negated(agree(seen.allowed(left), seen.allowed(right))),
            lambda env: _allowed(left, env) is not _allowed(right, env),
        )

    def implies(self, left: Policies, right: Policies) -> Verdict:
        """Whether the second allows whatever the first allows."""
        return self._search(
            [*left, *right],
            lambda seen: negated(implies(seen.allowed(left), seen.allowed(right))),
            lambda env: _allowed(left, env) and not _allowed(right, env),
        )

    def disjoint(self, left: Policies, right: Policies) -> Verdict:
        """Whether no request is allowed by both."""
        return self._search(
            [*left, *right],
            lambda seen: both(seen.allowed(left), seen.allowed(right)),
            lambda env: _allowed(left, env) and _allowed(right, env),
        )

    def _search(
        self,
        policies: Policies,
        wanted: "Callable[[_Seen], Truth]",
        replay: Callable[[Env], bool],
    ) -> Verdict:
        texts = uses_texts(policy.condition() for policy in policies)
        universe = Universe(self._schema, self._closed, texts=texts)
        request = AnyRequest(universe, self._kind)
        try:
            formula = wanted(_Seen(Encoder(universe, Sets(universe), request.asked)))
            found = satisfiable(universe, formula, timeout_ms=self._timeout_ms)
        except Unencodable as reason:
            return Unknown(f"not translated: {reason}")
        if isinstance(found, Nothing):
            return Proved()
        if isinstance(found, Unknown):
            return found
        env = request.concrete(Reading(universe, found))
        if not replay(env):
            return Unknown("the solver's counterexample did not stand up to evaluation")
        return Refuted(env)


class _Seen:
    """The policies as formulas over one request."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def allowed(self, policies: Policies) -> Truth:
        """Cedar's decision."""

        def some(effect: str) -> Truth:
            return any_of(
                self.encoder.holds(p.condition())[0]
                for p in policies
                if p.effect == effect and not p.is_template
            )

        return both(some("permit"), negated(some("forbid")))


def _allowed(policies: Policies, env: Env) -> bool:
    return authorize(policies, env, forbid_error_denies=False).allowed


def _holds(policy: Policy, env: Env) -> bool | None:
    try:
        return evaluate(policy.condition(), env) is True
    except EvaluationError:
        return None
