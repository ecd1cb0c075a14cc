"""The scenarios hold, and no policy could be lost or widened without one of them noticing."""

from collections import defaultdict
from dataclasses import replace
from itertools import product

import pytest

from chartgate.app.scenarios import CATEGORIES, Scenario, unused
from chartgate.cedar.ast import Policy, PolicySet
from chartgate.model.principal import EntityUid

DEMO = (
    "physician",
    "nurse",
    "receptionist_scheduler",
    "billing_coder",
    "privacy_officer",
    "it_support_dba",
)

# Clauses that no scenario can miss, because a guardrail says at least as much.
SHADOWED = {
    ("clinician_protected_person", 2): "protected_person_care_team_only",
    ("clinician_charts_protected_person", 2): "protected_person_care_team_only",
    ("dba_maintains", 1): "read_only_roles_never_write",
    ("privacy_masked", 1): "psychotherapy_notes_author_only",
    ("patient_corrects", 0): "nobody_writes_her_own_record",
    # a row about nobody has no age band: only the guardrail's case is left
    ("proxy_record", 2): "requests_are_about_their_patient",
    ("proxy_notes", 2): "requests_are_about_their_patient",
}


def test_every_scenario_holds(shipped) -> None:
    failures = [result.message for result in shipped.results if not result.passed]
    assert not failures, "\n".join(failures)


def test_every_category_is_asked_for_by_each_of_the_six_people(shipped) -> None:
    asked = {
        (assignment.role, scenario.record.category)
        for scenario in shipped.scenarios
        if scenario.asks == "view" and scenario.record is not None
        for assignment in scenario.who.assignments
    }
    assert set(product(DEMO, CATEGORIES)) <= asked


def test_there_are_at_least_150_each_with_its_clause(shipped) -> None:
    assert len(shipped.scenarios) >= 150
    assert all(scenario.clause for scenario in shipped.scenarios)


def test_every_policy_decides_some_scenario(shipped) -> None:
    assert unused(shipped.results, shipped.policies) == ()


def test_removing_any_policy_fails_a_scenario(shipped) -> None:
    """A scenario that the policy did not decide cannot change: only those are asked again."""
    deciding = defaultdict(list)
    for result in shipped.results:
        for policy_id in result.determining:
            deciding[policy_id].append(result.scenario)
    unnoticed = [
        policy.id
        for policy in shipped.policies.policies
        if not noticed(shipped, deciding[policy.id], without(shipped.policies, policy))
    ]
    assert unnoticed == []


@pytest.mark.slow
def test_dropping_any_condition_fails_a_scenario(shipped) -> None:
    unnoticed = {
        (policy.id, index)
        for policy in shipped.policies.policies
        for index in range(len(policy.conditions))
        if not noticed(
            shipped, concerned(shipped, policy), loosened(shipped.policies, policy, index)
        )
    }
    assert unnoticed == set(SHADOWED)


def noticed(shipped, scenarios: list[Scenario], policies: PolicySet) -> bool:
    # One at a time: the first that fails is enough.
    return any(not shipped.verdicts([scenario], policies)[0].passed for scenario in scenarios)


def without(policies: PolicySet, policy: Policy) -> PolicySet:
    return PolicySet(tuple(p for p in policies.policies if p is not policy), "mutant")


def loosened(policies: PolicySet, policy: Policy, index: int) -> PolicySet:
    """The policy with one condition fewer: a permit permits more, a forbid forbids more."""
    fewer = (*policy.conditions[:index], *policy.conditions[index + 1 :])
    mutant = replace(policy, conditions=fewer)
    return PolicySet(tuple(mutant if p is policy else p for p in policies.policies), "mutant")


def concerned(shipped, policy: Policy) -> list[Scenario]:
    """The scenarios whose person and question the policy's scope can meet."""
    ancestors = shipped.roles.entities().ancestors
    actions = {entity.id for entity in policy.action.entities}

    def is_met(scenario: Scenario) -> bool:
        roles = {
            role
            for assignment in scenario.who.assignments
            for role in ancestors(EntityUid("Role", assignment.role))
        }
        asked = {"view", "view_summary", "view_masked"} if scenario.asks == "view" else set()
        return (
            not policy.principal.entities or not roles.isdisjoint(policy.principal.entities)
        ) and (not actions or not actions.isdisjoint({*asked, scenario.asks}))

    return [scenario for scenario in shipped.scenarios if is_met(scenario)]
