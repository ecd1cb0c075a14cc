"""The shipped policies are valid, complete in their annotations, and can be enforced as filters."""

import re
from datetime import date

import cedarpy

from chartgate.app.entitlement import STORE_STEPS as GOVERNING
from chartgate.app.levels import Asking, level_of
from chartgate.app.rolebook import person_entity
from chartgate.app.scenario_context import CIRCUMSTANCES, DEVICES
from chartgate.app.scenarios import CATEGORIES, CHANGES, LOG_READS, STORE_STEPS
from chartgate.cedar.validate import validate
from chartgate.cedar.values import DateTime, RecordValue
from chartgate.model.disclosure import VIEW_ACTIONS
from chartgate.model.principal import EntityUid, Person
from chartgate.targets.admissible import check_filters

ROLES = (
    "physician", "nurse", "receptionist_scheduler", "billing_coder", "privacy_officer",
    "it_support_dba", "behavioral_health_clinician", "pharmacist", "administrative_assistant",
    "front_line_worker", "lab_tech", "radiologist", "him_records",
    "quality_analyst", "researcher", "security_officer",
)  # fmt: skip
OUTSIDE = ("vendor_contractor", "patient", "proxy")
CLAUSE = re.compile(r"(164|42 CFR 2)\.\d+(\([a-zA-Z0-9]+\))*")


def test_strict_validation_accepts_them(shipped) -> None:
    validate(shipped.policies, shipped.schema)


def test_the_validator_refuses_a_misspelt_category(shipped) -> None:
    text = (shipped.folder / "roles" / "nurse.cedar").read_text()
    broken = text.replace('Category::"notes"', 'Category::"note"')
    answer = cedarpy.validate_policies(broken, shipped.schema.text)
    assert broken != text
    assert not answer.validation_passed


def test_every_one_of_them_can_become_a_row_filter(shipped) -> None:
    check_filters(shipped.policies, shipped.schema)


def test_they_name_only_roles_and_purposes_that_are_declared(shipped) -> None:
    shipped.roles.check_policies(shipped.policies)


def test_each_cites_its_clause_its_owner_and_its_review_date(shipped) -> None:
    for policy in shipped.policies.policies:
        clauses = (policy.annotation("clause") or "").split("; ")
        assert all(CLAUSE.fullmatch(clause) for clause in clauses), policy.id
        assert policy.annotation("owner"), policy.id
        assert date.fromisoformat(policy.annotation("review") or "") == date(2027, 6, 30)


def test_permits_live_in_the_file_of_their_role_and_forbids_in_guardrails(shipped) -> None:
    for policy in shipped.policies.policies:
        if policy.effect == "forbid":
            assert policy.origin.file == "guardrails.cedar"
        else:
            (role,) = policy.principal.entities
            assert policy.origin.file == f"roles/{role.id}.cedar"


def test_every_permit_to_change_or_read_data_names_its_purpose(shipped) -> None:
    unbound = [
        p.id
        for p in shipped.policies.policies
        if p.effect == "permit" and "context.purpose in" not in p.text
    ]
    assert unbound == ["workforce_directory"]


def test_every_role_has_a_file_a_default_purpose_and_a_place_in_the_workforce(shipped) -> None:
    ancestors = shipped.roles.entities().ancestors
    for name in ROLES:
        role = shipped.roles.roles[name]
        assert (shipped.folder / "roles" / f"{name}.cedar").is_file()
        assert role.default_purpose in role.purposes
        assert EntityUid("Role", "workforce") in ancestors(EntityUid("Role", name))
    for name in OUTSIDE:
        role = shipped.roles.roles[name]
        assert (shipped.folder / "roles" / f"{name}.cedar").is_file()
        assert role.default_purpose
        assert ancestors(EntityUid("Role", name)) == {EntityUid("Role", name)}
    assert set(shipped.roles.roles) == {*ROLES, *OUTSIDE, "workforce", "clinician"}


def test_the_words_of_scenarios_are_those_of_the_schema(shipped) -> None:
    assert set(shipped.schema.entities["Category"].enum or ()) == set(CATEGORIES)
    actions = {uid.id for uid in shipped.schema.actions}
    assert actions == {*VIEW_ACTIONS.values(), *CHANGES, *LOG_READS, *STORE_STEPS}
    assert set(STORE_STEPS) == GOVERNING
    assert set(shipped.schema.entities["Device"].enum or ()) == set(DEVICES)
    for action in shipped.schema.actions.values():
        optional = {name for name, a in action.context.attributes.items() if not a.required}
        assert optional == set(CIRCUMSTANCES)


def test_somebody_without_a_role_sees_nothing_of_anything(shipped) -> None:
    nobody = person_entity(Person("u", "u", "u", active=True), ())
    for purpose in shipped.roles.purposes:
        context = RecordValue(
            {"purpose": EntityUid("Purpose", purpose), "now": DateTime(0), "source": "s"}
        )
        asking = Asking(
            shipped.policies, shipped.roles.entities().with_(nobody), nobody.uid, context
        )
        for category in CATEGORIES:
            assert level_of(asking, RecordValue(), category).level == 0
