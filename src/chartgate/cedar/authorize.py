"""From policies to an answer (Cedar "How authorization works"), and our one hardening.

The rules kept: nothing is allowed unless a permit holds; any forbid that holds denies; the answer
names the policies that determined it and those that had no value.

Cedar skips a policy whose evaluation fails, so a *forbid* that fails no longer forbids. Where a
decision is enforced (``forbid_error_denies=True``) such a forbid denies and is named among the
determining policies. Conformance with Cedar is measured with it off.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from chartgate.cedar.ast import Policy, PolicySet
from chartgate.cedar.evaluate import Env, EvaluationError, evaluate


@dataclass(frozen=True, slots=True)
class Answer:
    """The decision, the policies that made it, and (policy id, words) for each that failed."""

    allowed: bool
    determining: tuple[str, ...]
    errors: tuple[tuple[str, str], ...]


def authorize(
    policies: PolicySet | Iterable[Policy], env: Env, *, forbid_error_denies: bool
) -> Answer:
    """Whether the request is allowed, and why. Unlinked templates decide nothing."""
    permits: list[str] = []
    forbids: list[str] = []
    errors: list[tuple[str, str]] = []
    for policy in policies.policies if isinstance(policies, PolicySet) else policies:
        if policy.is_template:
            continue
        satisfied = permits if policy.effect == "permit" else forbids
        try:
            if evaluate(policy.condition(), env) is True:
                satisfied.append(policy.id)
        except EvaluationError as error:
            errors.append((policy.id, str(error)))
            if forbid_error_denies and policy.effect == "forbid":
                forbids.append(policy.id)
    if forbids:
        return Answer(False, tuple(forbids), tuple(errors))
    return Answer(bool(permits), tuple(permits), tuple(errors))
