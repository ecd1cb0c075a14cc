"""Well-typed policies over a drawn schema: the reference evaluator is cedarpy, and validation holds.

``HYPOTHESIS_PROFILE=nightly`` runs the long campaign.
"""

import json
import re
from collections.abc import Iterable

import cedarpy
import pytest
from hypothesis import given

from chartgate.cedar.ast import PolicySet
from chartgate.cedar.authorize import Answer, authorize
from chartgate.cedar.errors import EvaluationError
from chartgate.cedar.evaluate import Env, evaluate
from chartgate.cedar.parse import parse_policies, policy_set, validate
from chartgate.cedar.templates import Link, with_links
from strategies.cedar import Case, cases
from strategies.cedar_world import World

pytestmark = pytest.mark.timeout(7200)

FAILED = re.compile(r"error while evaluating policy `([^`]+)`")
# What strict validation cannot exclude: numbers and times beyond 64 bits, entities nobody stored.
LEFT_OPEN = {"overflow", "missing_entity"}


def loaded(case: Case) -> PolicySet:
    """The set as it would be loaded: parsed, linked, strictly validated."""
    policies = parse_policies({"p": case.text}, ids="order", templates=True)
    return with_links(policies, case.links, case.schema)


def linked_by_cedarpy(text: str, links: Iterable[Link]) -> cedarpy.PolicySet:
    forms = [
        {
            "template_id": one.template,
            "new_id": one.id,
            "values": {slot: uid._asdict() for slot, uid in one.values.items()},
        }
        for one in links
    ]
    return cedarpy.PolicySet.from_str(text).with_linked_batch(forms)


def asked_of_cedarpy(handle: object, world: World) -> tuple[bool, set[str], set[str]]:
    # With the schema, cedarpy also checks that request and entities conform to it.
    answer = cedarpy.is_authorized(
        world.request, handle, json.dumps(world.forms), world.schema.text
    )
    found = [FAILED.match(error) for error in answer.diagnostics.errors]
    assert None not in found, answer.diagnostics.errors
    return (
        answer.allowed,
        set(answer.diagnostics.reasons),
        {one.group(1) for one in found if one},
    )


def told(answer: Answer) -> tuple[bool, set[str], set[str]]:
    return answer.allowed, set(answer.determining), {policy_id for policy_id, _ in answer.errors}


@given(cases())
def test_decision_reasons_and_errors_are_those_of_cedarpy(case: Case) -> None:
    policies, handle = loaded(case), linked_by_cedarpy(case.text, case.links)
    for world in case.worlds:
        ours = authorize(policies, world.env, forbid_error_denies=False)
        assert told(ours) == asked_of_cedarpy(handle, world)


def kinds_of_errors(policies: PolicySet, env: Env) -> set[str]:
    kinds = set()
    for policy in policies.policies:
        try:
            evaluate(policy.condition(), env)
        except EvaluationError as error:
            kinds.add(error.kind)
    return kinds


@given(cases())
def test_what_strict_validation_accepts_errs_only_where_types_cannot_tell(case: Case) -> None:
    policies = loaded(case)
    for world in case.worlds:
        assert kinds_of_errors(policies, world.env) <= LEFT_OPEN


@given(cases(most=6, templates=False))
def test_the_laws_of_authorization_hold(case: Case) -> None:
    policies = loaded(case)
    for world in case.worlds:
        for hard in (False, True):
            whole = authorize(policies, world.env, forbid_error_denies=hard)
            # (1) Nothing is allowed by no policy.
            nothing = authorize(policy_set([]), world.env, forbid_error_denies=hard)
            assert nothing == Answer(False, (), ())
            permits = [p for p in policies.policies if p.effect == "permit"]
            forbids = [p for p in policies.policies if p.effect == "forbid"]
            # (2) A forbid beats every permit, and alone decides.
            stopped = authorize(forbids, world.env, forbid_error_denies=hard)
            if stopped.determining:
                assert not whole.allowed
                assert whole.determining == stopped.determining
            # (3) An allow is exactly a satisfied permit and no satisfied forbid.
            granted = authorize(permits, world.env, forbid_error_denies=hard)
            assert whole.allowed == (bool(granted.determining) and not stopped.determining)
            # (4) Without one forbid at least as much is allowed.
            for dropped in forbids:
                rest = [p for p in policies.policies if p is not dropped]
                fewer = authorize(rest, world.env, forbid_error_denies=hard)
                assert fewer.allowed or not whole.allowed
            # (5) Without one permit at most as much is allowed.
            for dropped in permits:
                rest = [p for p in policies.policies if p is not dropped]
                fewer = authorize(rest, world.env, forbid_error_denies=hard)
                assert whole.allowed or not fewer.allowed


@given(cases(worlds=1))
def test_each_drawn_policy_passes_strict_validation_of_its_templates_too(case: Case) -> None:
    validate(parse_policies({"p": case.text}, ids="order", templates=True), case.schema)
