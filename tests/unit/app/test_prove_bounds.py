"""What a proof may take for granted is what the gate keeps, not what a schema promises."""

from datetime import UTC, datetime

import pytest

from chartgate.app.invariants import InvalidInvariant, invariants_of
from chartgate.app.policy_bundle import Bundle, open_bundle
from chartgate.app.prove import Proof, prove, prover_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SCHEMA = """
entity Category enum ["notes", "labs"];
entity Grade enum ["low", "high"];
entity Purpose in [Purpose];
entity Role in [Role];
entity Department;
entity User in [Role] = { departments: Set<Department>, active: Bool };
entity Record = {
  category: Category, grade?: Grade, grades: Set<Grade>, least?: Role, locked: Bool,
};
entity AuditLog = { kept: Bool };
entity Robot;
type Asked = { purpose: Purpose, now: datetime, source: String, local: Bool };
action writes;
action idle appliesTo { principal: [Robot], resource: [Record], context: Asked };
action view, view_summary, view_masked appliesTo {
  principal: [User], resource: [Record], context: Asked };
action update in [writes] appliesTo { principal: [User], resource: [Record], context: Asked };
action read_audit appliesTo { principal: [User], resource: [AuditLog], context: Asked };
"""
ROLES = """
[roles.nurse]
title = "Nurse"
parents = []
default_purpose = "TREAT"
purposes = ["TREAT"]
[roles.clerk]
title = "Clerk"
parents = []
default_purpose = "TREAT"
purposes = ["TREAT"]
"""


def proof(policies: str, claim: str) -> Proof:
    version = open_bundle(
        Bundle(
            {
                "schema.cedarschema": SCHEMA,
                "roles.toml": ROLES,
                "purposes.toml": "TREAT = []\n",
                "all.cedar": policies,
                "invariants/one.toml": '[[invariant]]\nid = "it"\nwords = "It holds"\n'
                f'clause = "164.502(b)"\n{claim}\n',
            }
        )
    )
    invariants = invariants_of(version)
    prover = prover_of(version, invariants, now=NOW, timeout=20)
    (found,) = prove(prover, invariants, clock=lambda: 0.0)
    return found


VIEW = '@id("open") permit (principal, action == Action::"view", resource)'


@pytest.mark.parametrize("whom", ["action", 'action in Action::"writes"'])
def test_no_action_is_in_a_group_as_far_as_the_gate_knows(whom: str) -> None:
    closed = f'@id("closed") forbid (principal, {whom}, resource)'
    closed += " when { action in " + 'Action::"writes" };'
    update = '@id("open") permit (principal, action == Action::"update", resource);'
    assert proof(update + closed, 'claim = "never"\nactions = ["update"]').verdict == "violated"


def test_a_column_may_hold_what_no_list_of_the_schema_has() -> None:
    never = 'claim = "never"\nactions = ["view"]\n'
    high = ' when { resource has grade } unless { resource.grade == Grade::"high" };'
    low = """unless = 'resource has grade && resource.grade == Grade::"low"'"""
    found = proof(VIEW + high, never + low)
    assert found.verdict == "violated"
    assert found.example is not None
    assert str(found.example.record["grade"]) not in {'Grade::"low"', 'Grade::"high"'}
    some = " when { !resource.grades.isEmpty() };"
    both = """unless = 'resource.grades.containsAny([Grade::"low", Grade::"high"])'"""
    assert proof(VIEW + some, never + both).verdict == "violated"
    role = " when { resource has least };"
    either = """unless = 'resource has least && (resource.least == Role::"nurse"
        || resource.least == Role::"clerk")'"""
    assert proof(VIEW + role, never + either.replace("\n", "")).verdict == "violated"


def test_the_label_that_is_asked_about_is_one_that_the_schema_lists() -> None:
    notes = ' unless { resource.category == Category::"notes" };'
    claim = (
        """claim = "never"\nactions = ["view"]\nunless = 'resource.category == Category::"labs"'"""
    )
    assert proof(VIEW + notes, claim).verdict == "proved"


@pytest.mark.parametrize(
    ("has", "value"),
    [
        ("resource has locked", "resource.locked"),
        ("principal has active", "principal.active"),
        ("context has local", "context.local"),
    ],
)
def test_what_the_gate_does_not_supply_may_be_absent_whatever_the_schema_says(
    has: str, value: str
) -> None:
    unless_there = f" when {{ if {has} then {value} else true }};"
    claim = f'claim = "never"\nactions = ["view"]\nunless = "{value}"'
    assert proof(VIEW + unless_there, claim).verdict == "violated"
    asked = f" when {{ {value} || !{value} }};"
    assert proof(VIEW + asked, 'claim = "never_errors"').verdict == "violated"
    assert proof(VIEW + asked, 'claim = "always"\nactions = ["view"]').verdict == "violated"


def test_nothing_is_kept_of_the_log() -> None:
    log = '@id("log") permit (principal, action == Action::"read_audit", resource)'
    asked = log + " when { resource.kept || !resource.kept };"
    claim = 'claim = "always"\nactions = ["read_audit"]'
    assert proof(asked, claim).verdict == "violated"
    assert proof(log + ";", claim).verdict == "proved"


@pytest.mark.parametrize("claim", ["never", "always"])
@pytest.mark.parametrize(
    "bound",
    [
        """when = 'resource.category == Category::"labs" && resource.category == Category::"notes"'""",
        "unless = 'true'",
    ],
)
def test_a_claim_about_no_request_is_not_called_proved(claim: str, bound: str) -> None:
    found = proof(VIEW + ";", f'claim = "{claim}"\nactions = ["view"]\n{bound}')
    assert (found.verdict, found.why) == (
        "unknown",
        "no request meets its conditions, so that it claims nothing",
    )


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        (
            'actions = ["view", "read_audit"]\ncategories = ["labs"]',
            "read_audit is not about record",
        ),
        ('actions = ["writes"]', "no person can ask for writes"),
        ('actions = ["idle"]', "no person can ask for idle"),
    ],
)
def test_a_claim_about_what_nobody_can_ask_is_refused(bounds: str, said: str) -> None:
    with pytest.raises(InvalidInvariant, match=said):
        proof(VIEW + ";", f'claim = "never"\n{bounds}')
