"""Questions of applications and their rulings: what is refused in words, believed, told and kept."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chartgate.adapters.policy_files import load_data_map, load_policy_version
from chartgate.app.authzen import answer
from chartgate.app.clauses import parse_citation
from chartgate.app.patient_record import PatientRecord
from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.ruling import Ruling
from chartgate.app.rulings import Rulings
from chartgate.app.standing import PersonStandings
from chartgate.cedar.entities import Entity
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.values import CedarSet
from chartgate.datamap.model import DataMap
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.model.service import EVERYTHING, Scope

BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
NOW = 1_790_000_000_000
ONLY_ASKS = Scope(frozenset("*"), frozenset("*"), frozenset("*"))


def person(name: str, *held: Assignment, active: bool = True) -> Person:
    return Person(f"uid-{name}", name, name, active, held)


def role(name: str, department: str | None = None, **more: Any) -> Assignment:
    return Assignment(name, department, BEGIN, more.pop("until", None), **more)


PEOPLE = {
    "mwelby": person("mwelby", role("physician", "cardiology")),
    "oncdoc": person("oncdoc", role("physician", "oncology")),
    "bcoder": person("bcoder", role("billing_coder", "billing")),
    "both": person("both", role("physician", "cardiology"), role("billing_coder", "billing")),
    "nobody": person("nobody"),
    "gone": person("gone", role("physician", "cardiology"), active=False),
    "dba": person("dba", role("it_support_dba", "it", reference="OPS-1")),
}


def departments(*names: str) -> CedarSet:
    return CedarSet.of(EntityUid("Department", name) for name in names)


def facts(*labels: str, team: tuple[str, ...] = ("mwelby",)) -> PatientRecord:
    return PatientRecord(
        {
            "patient": EntityUid("Patient", "7"),
            "care_team": CedarSet.of(EntityUid("User", name) for name in team),
            "departments": departments("cardiology"),
            "queues": departments(),
            "age_bands": CedarSet.of([EntityUid("AgeBand", "adult")]),
        },
        labels,
    )


FACTS = facts()


@pytest.fixture(scope="module")
def version(project_root: Path) -> PolicyVersion:
    return load_policy_version(project_root / "policies")


@pytest.fixture(scope="module")
def hospital(project_root: Path, version: PolicyVersion) -> DataMap:
    return load_data_map(project_root / "maps" / "hospital.toml", version.schema)


@pytest.fixture(scope="module")
def rulings(version: PolicyVersion, hospital: DataMap) -> Rulings:
    return Rulings(version, PersonStandings(PEOPLE, version.roles), data_map=hospital)


def question(
    who: str = "mwelby",
    action: str = "view",
    said: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    **more: Any,
) -> Question:
    said = {"patient": "7", "category": "labs"} if said is None else dict(said)
    return Question(
        Subject("User", who, more.get("subject", {})),
        Action(action, more.get("doing", {})),
        Resource(more.get("kind", "Record"), "r", said),
        dict(context or {}),
    )


def ask(
    rulings: Rulings, *args: Any, known: Any = FACTS, scope: Scope = EVERYTHING, **kw: Any
) -> Ruling:
    return rulings.rule(question(*args, **kw), scope, known, NOW)


def code(ruling: Ruling) -> str:
    assert ruling.reason is not None
    assert not ruling.allowed
    assert all(parse_citation(clause) is not None for clause in ruling.reason.clauses)
    return ruling.reason.code


def test_what_is_allowed_says_by_which_policy_and_for_the_log_who_it_was(rulings: Rulings) -> None:
    ruling = ask(rulings)
    assert ruling.allowed
    assert ruling.reason is None
    assert ruling.levels == {"labs": "full"}
    assert ruling.determining == ("physician_treats",)
    assert (ruling.person, ruling.roles, ruling.departments) == (
        "uid-mwelby", ("physician",), ("cardiology",),
    )  # fmt: skip
    assert ruling.held == (("physician@cardiology", ""),)
    assert (ruling.purpose, ruling.purpose_claimed, ruling.patient) == ("TREAT", False, "7")
    assert ruling.policy_set == rulings.hash
    assert ruling.data_map == rulings.data_map_hash
    assert ruling.is_phi


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"category": "labs"}, "patient_needed"),
        ({"patient": "", "category": "labs"}, "wrong_type"),
        ({"patient": ["7"], "category": "labs"}, "wrong_type"),
        ({"patient": True, "category": "labs"}, "wrong_type"),
        ({"patient": "7"}, "category_needed"),
        ({"patient": "7", "category": "secrets"}, "not_askable"),
        ({"patient": "7", "category": 3}, "wrong_type"),
        ({"patient": "7", "categories": "labs"}, "wrong_type"),
        ({"patient": "7", "fields": "patient.ssn"}, "wrong_type"),
        ({"patient": "7", "fields": ["nowhere.column"]}, "not_askable"),
        ({"patient": "7", "fields": {"mine": "secrets"}}, "not_askable"),
    ],
)
def test_what_cannot_be_decided_is_refused_in_words(
    rulings: Rulings, said: dict[str, Any], expected: str
) -> None:
    assert code(ask(rulings, said=said)) == expected


def test_what_belongs_to_no_patient_needs_none(rulings: Rulings) -> None:
    ruling = ask(rulings, "dba", said={"category": "technical"}, known=None)
    assert ruling.allowed
    assert not ruling.is_phi
    directory = ask(rulings, "bcoder", said={"fields": ["staff.full_name"]}, known=None)
    assert directory.fields == {"staff.full_name": "summary"}


def test_what_leaves_names_who_receives_it(rulings: Rulings) -> None:
    assert code(ask(rulings, action="export")) == "recipient_needed"
    named = ask(rulings, action="export", context={"recipient": "Registry"})
    assert code(named) in {"forbidden", "not_allowed", "no_permit"}
    assert named.recipient == "Registry"
    assert ask(rulings, context={"recipient": "Registry"}).recipient == ""
    assert code(ask(rulings, context={"recipient": 7})) == "wrong_type"


def test_who_is_not_there_or_holds_nothing_is_refused(rulings: Rulings) -> None:
    assert code(ask(rulings, "stranger")) == "unknown_subject"
    assert code(ask(rulings, "gone")) == "unknown_subject"
    assert code(ask(rulings, "nobody")) == "no_permit"
    assert code(ask(rulings, "nobody", context={"purpose": "TREAT"})) == "no_permit"


def test_a_purpose_is_a_claim_limited_by_role(rulings: Rulings) -> None:
    claimed = ask(rulings, context={"purpose": "ETREAT"})
    assert claimed.allowed
    assert (claimed.purpose, claimed.purpose_claimed) == ("ETREAT", True)
    refused = ask(rulings, context={"purpose": "HRESCH"})
    assert code(refused) == "purpose_refused"
    assert refused.purpose == "HRESCH"
    made_up = ask(rulings, context={"purpose": "curiosity about Ann"})
    assert code(made_up) == "purpose_refused"
    assert made_up.purpose == ""
    assert code(ask(rulings, context={"purpose": 3})) == "wrong_type"


def test_a_denial_tells_the_purpose_that_would_do(rulings: Rulings) -> None:
    ruling = ask(rulings, "mwelby", context={"purpose": "HPAYMT"})
    assert code(ruling) in {"no_permit", "not_allowed", "forbidden"}
    [offered] = [o for o in ruling.obligations if o.type == "purpose"]
    assert "TREAT" in offered.values
    assert "HPAYMT" not in offered.values


def test_an_unknown_patient_is_told_as_one_whom_nobody_let_her_see(rulings: Rulings) -> None:
    for category in sorted(rulings.shape.categories - {"technical", "audit_log"}):
        for action in ("view", "view_masked", "update"):
            said = {"patient": "7", "category": category}
            strange = ask(rulings, "oncdoc", action, said)
            unknown = ask(rulings, "oncdoc", action, said, known=None)
            if strange.reason is not None and strange.reason.code == "not_allowed":
                assert unknown == strange, (category, action)
                protected = ask(rulings, "oncdoc", action, said, known=facts("protected_person"))
                assert protected == strange, (category, action)
            else:
                assert code(unknown) == "not_allowed"


def test_whoever_sees_every_patient_is_not_told_whom_a_label_hides(rulings: Rulings) -> None:
    said = {"patient": "7", "category": "billing"}
    assert ask(rulings, "bcoder", said=said).allowed
    unknown = ask(rulings, "bcoder", said=said, known=None)
    assert code(unknown) == "not_allowed"
    assert unknown.levels == {"billing": "withheld"}
    hidden = ask(rulings, "bcoder", said=said, known=facts("sud_part2"))
    assert answer(hidden) == answer(unknown)


def test_the_labels_of_the_patient_count_for_every_category(rulings: Rulings) -> None:
    assert ask(rulings, known=facts("protected_person")).allowed
    stranger = ask(rulings, known=facts("protected_person", team=()))
    assert code(stranger) == "not_allowed"
    assert stranger.levels == {"labs": "withheld"}
    # The log knows why; the caller is told what is told where there is no such patient.
    assert "protected_person_care_team_only" in stranger.determining
    assert answer(stranger) == answer(ask(rulings, known=None))


def test_many_fields_are_one_question(rulings: Rulings) -> None:
    said = {
        "patient": "7",
        "fields": ["patient.ssn", "patient.last_name", "patient.patient_id", "lab_result.value"],
    }
    ruling = ask(rulings, said=said)
    assert not ruling.allowed
    assert ruling.fields["patient.ssn"] == "masked"
    assert ruling.fields["patient.last_name"] == "full"
    assert ruling.fields["patient.patient_id"] == "full"
    # The row might carry any label that rows of the table can carry.
    assert ruling.fields["lab_result.value"] == "masked"
    [mask] = [o for o in ruling.obligations if o.type == "mask"]
    assert mask.categories == {"gov_ids": "masked", "labs": "masked"}
    told = ask(rulings, said={**said, "labels": []})
    assert told.fields["lab_result.value"] == "full"
    doubted = ask(rulings, said={**said, "labels": []}, scope=ONLY_ASKS)
    assert doubted.fields["lab_result.value"] == "masked"
    assert doubted.ignored == ("resource.labels",)
    own = ask(rulings, said={"patient": "7", "fields": {"a": "labs", "b": "gov_ids"}})
    assert own.fields == {"a": "full", "b": "masked"}
    assert code(ask(rulings, said={**said, "labels": ["nonsense"]})) == "wrong_type"


def test_what_only_the_control_plane_says_is_ignored_and_told(rulings: Rulings) -> None:
    said = {
        "patient": "7",
        "category": "labs",
        "departments": ["oncology"],
        "care_team": ["oncdoc"],
    }
    ruling = ask(rulings, "oncdoc", said=said, subject={"roles": ["dean"], "departments": ["x"]})
    assert code(ruling) == "not_allowed"
    assert set(ruling.ignored) == {
        "subject.roles", "subject.departments", "resource.departments", "resource.care_team",
    }  # fmt: skip


def test_what_a_service_may_not_say_is_absent_and_what_nobody_knows_leaves_no_trace(
    rulings: Rulings,
) -> None:
    said = {"patient": "7", "category": "psychotherapy_notes", "author": "mwelby"}
    assert ask(rulings, said=said, scope=ONLY_ASKS).ignored == ("resource.author",)
    with_name = {**said, "Ann Smith": True}
    ruling = ask(rulings, said=with_name, context={"hobby": 3}, scope=ONLY_ASKS)
    assert ruling.ignored == ("resource.author",)


def test_a_believed_value_of_the_wrong_type_refuses_the_question(rulings: Rulings) -> None:
    said = {"patient": "7", "category": "labs", "author": ["mwelby"]}
    refused = ask(rulings, said=said)
    assert code(refused) == "wrong_type"
    assert refused.reason is not None
    assert "resource.author" in refused.reason.text


def test_the_clock_and_the_source_are_ours(rulings: Rulings) -> None:
    ruling = ask(rulings, context={"now": "2020-01-01", "source": "elsewhere"})
    assert set(ruling.ignored) == {"context.now", "context.source"}
    assert ruling.allowed


def test_a_scope_limits_actions_types_and_categories(rulings: Rulings) -> None:
    scope = Scope(frozenset({"view"}), frozenset({"Record"}), frozenset({"labs"}))
    assert ask(rulings, scope=scope).allowed
    assert code(ask(rulings, action="update", scope=scope)) == "out_of_scope"
    assert code(ask(rulings, kind="AuditLog", scope=scope)) == "out_of_scope"
    other = {"patient": "7", "categories": ["labs", "notes"]}
    assert code(ask(rulings, said=other, scope=scope)) == "out_of_scope"
    columns = {"patient": "7", "fields": ["patient.ssn"]}
    assert code(ask(rulings, said=columns, scope=scope)) == "out_of_scope"


def test_what_the_schema_does_not_know_cannot_be_asked(rulings: Rulings) -> None:
    assert code(ask(rulings, action="peek at Ann")) == "not_askable"
    assert "Ann" not in str(ask(rulings, action="peek at Ann").reason)
    assert code(ask(rulings, action="view", kind="AuditLog")) == "not_askable"


def test_plain_types_are_plain_cedar(rulings: Rulings) -> None:
    assert code(ask(rulings, "mwelby", "read_audit", {}, kind="AuditLog")) == "no_permit"


def test_the_emergency_procedure_is_open_whoever_the_patient_is(
    version: PolicyVersion, rulings: Rulings
) -> None:
    open_to = getattr(version.roles.roles["physician"], "break_glass", ())
    if "labs" not in open_to:
        pytest.skip("the shipped roles open no category in an emergency")
    for known in (facts(), None):
        ruling = ask(rulings, "oncdoc", known=known)
        assert [o.values for o in ruling.obligations if o.type == "break_glass"] == [("labs",)]
    assert not [o for o in ask(rulings).obligations if o.type == "break_glass"]


def test_an_assignment_that_ends_bounds_the_answer(
    version: PolicyVersion, hospital: DataMap
) -> None:
    until = datetime.fromtimestamp(NOW / 1000 + 60, UTC)
    people = {"ann": person("ann", role("physician", "cardiology", until=until))}
    rulings = Rulings(version, PersonStandings(people, version.roles), data_map=hospital)
    assert ask(rulings, "ann").valid_until == NOW + 60_000
    late = rulings.rule(question("ann"), EVERYTHING, facts(), NOW + 60_000)
    assert code(late) == "no_permit"


GRANT = """permit (principal == User::"oncdoc", action == Action::"view", resource)
when { resource.category == Category::"labs" && context.purpose in Purpose::"TREAT" &&
  resource has patient && resource.patient == Patient::"7" &&
  context.now < datetime("2026-12-31T00:00:00Z") };"""


def test_a_grant_counts_at_once_bounds_the_answer_and_is_named(
    version: PolicyVersion, hospital: DataMap
) -> None:
    rulings = Rulings(version, PersonStandings(PEOPLE, version.roles), data_map=hospital)
    assert code(ask(rulings, "oncdoc")) == "not_allowed"
    rulings.grant(*parse_policies({"g": f'@id("grant-1") {GRANT}'}).policies)
    given = ask(rulings, "oncdoc")
    assert given.allowed
    assert given.grants == ("grant-1",)
    assert given.valid_until == 1_798_675_200_000
    assert [p.id for p in rulings.granted()] == ["grant-1"]
    assert rulings.revoke("grant-1")
    assert code(ask(rulings, "oncdoc")) == "not_allowed"


def test_a_batch_shares_its_work_and_not_its_answers(rulings: Rulings) -> None:
    asked = [
        question(who, action, {"patient": patient, "category": category}, {"purpose": purpose})
        for who in ("mwelby", "oncdoc", "both", "stranger")
        for action in ("view", "update", "view_masked")
        for patient in ("7", "8")
        for category in ("labs", "gov_ids")
        for purpose in ("TREAT", "HPAYMT")
    ]
    known = {"7": facts("protected_person"), "8": None}
    single = [rulings.rule(q, EVERYTHING, known[rulings.patient_of(q) or ""], NOW) for q in asked]
    assert rulings.rule_many(asked, EVERYTHING, known, NOW) == single
    sitting = rulings.sitting(EVERYTHING, NOW)
    assert [sitting.rule(q, known[rulings.patient_of(q) or ""]) for q in asked] == single


def test_a_claim_of_the_wrong_type_does_not_pass_for_the_one_before_it(
    rulings: Rulings, version: PolicyVersion
) -> None:
    if "acr" not in version.schema.actions[EntityUid("Action", "view")].context.attributes:
        pytest.skip("the shipped schema does not ask how strongly somebody signed in")
    right, wrong = question(context={"acr": 1}), question(context={"acr": True})
    first, second = rulings.rule_many([right, wrong], EVERYTHING, {"7": facts()}, NOW)
    assert first.allowed
    assert first.context == {"acr": "1"}
    assert code(second) == "wrong_type"


# --- plain policies -------------------------------------------------------------------------------

PLAIN = {
    "schema.cedarschema": """
entity Role in [Role];
entity Purpose in [Purpose];
entity User in [Role] = { departments: Set<Department>, clearance?: Long };
entity Department;
entity Document = { owner: User, size: Long, tags: Set<String> };
action read, write appliesTo {
  principal: [User], resource: [Document],
  context: { purpose: Purpose, acr?: Long, ip?: ipaddr, device?: String }
};
""",
    "roles.toml": """
[roles.clerk]
default_purpose = "WORK"
purposes = ["WORK", "LEGAL"]
""",
    "purposes.toml": "WORK = []\nLEGAL = []\n",
    "p.cedar": """
@id("owner") permit (principal, action == Action::"write", resource)
when { resource.owner == principal && context has acr && context.acr >= 2 };
@id("clerk_reads") @clause("164.506(a)")
permit (principal in Role::"clerk", action == Action::"read", resource)
when { context.purpose in Purpose::"LEGAL" || resource.tags.contains("open") };
@id("too_big") @title("Large documents stay closed") @owner("Records") @clause("164.514(d)")
forbid (principal, action, resource) when { resource.size + 1 > 100 };
""",
}


@pytest.fixture(scope="module")
def plain() -> Rulings:
    version = open_bundle(Bundle(PLAIN))
    people = {
        "ann": person("ann", role("clerk", "front")),
        "two": person("two", role("clerk", "front"), role("clerk", "back")),
    }
    ann = EntityUid("User", "ann")
    document = Entity(
        EntityUid("Document", "1"), {"owner": ann, "size": 10, "tags": CedarSet.of(["open"])}
    )
    stored = Entity(
        EntityUid("User", "store"),
        {"departments": CedarSet.of(())},
        frozenset({EntityUid("Role", "clerk")}),
    )
    return Rulings(version, PersonStandings(people, version.roles), entities=(document, stored))


def document(
    plain: Rulings, who: str, action: str, said: Any = None, context: Any = None, **more: Any
) -> Ruling:
    asked = Question(
        Subject("User", who, more.get("subject", {})),
        Action(action, more.get("doing", {})),
        Resource("Document", more.get("id", "1"), said or {}),
        context or {},
    )
    assert plain.patient_of(asked) is None
    return plain.rule(asked, more.get("scope", EVERYTHING), None, NOW)


def test_a_stored_entity_is_asked_about_with_what_a_caller_says_laid_over_it(
    plain: Rulings,
) -> None:
    assert document(plain, "ann", "read").allowed
    assert document(plain, "ann", "read").determining == ("clerk_reads",)
    assert not document(plain, "ann", "read", {"tags": []}).allowed
    doubted = document(plain, "ann", "read", {"tags": []}, scope=ONLY_ASKS)
    assert doubted.allowed
    assert doubted.ignored == ("resource.tags",)
    fresh = {"owner": "ann", "size": 1, "tags": ["open"]}
    assert document(plain, "ann", "read", fresh, id="2").allowed


def test_a_stored_subject_has_the_purposes_of_its_stored_roles(plain: Rulings) -> None:
    assert document(plain, "store", "read").purpose == "WORK"
    assert document(plain, "store", "read").allowed
    assert document(plain, "store", "read").person == ""


def test_two_assignments_that_policies_cannot_tell_apart_answer_as_one(plain: Rulings) -> None:
    assert document(plain, "two", "read").allowed


def test_a_forbid_is_told_by_its_title_its_owner_and_its_clause(plain: Rulings) -> None:
    big = document(plain, "ann", "read", {"size": 500})
    assert code(big) == "forbidden"
    assert big.reason is not None
    assert big.reason.text == "Forbidden by: Large documents stay closed. Whom to ask: Records."
    assert big.reason.clauses == ("164.514(d)",)
    assert big.determining == ("too_big",)
    failing = document(plain, "ann", "read", {"size": 2**63 - 1})
    assert code(failing) == "forbidden"
    assert failing.failed == ("too_big",)
    assert "could not be evaluated" in str(failing.reason)


def test_a_denial_offers_the_purpose_or_the_stronger_sign_in_that_would_do(plain: Rulings) -> None:
    closed = document(plain, "ann", "read", {"tags": []})
    assert [(o.type, o.values) for o in closed.obligations] == [("purpose", ("LEGAL",))]
    unowned = document(plain, "two", "write")
    assert unowned.obligations == ()
    weak = document(plain, "ann", "write", context={"acr": 1})
    assert [(o.type, o.values) for o in weak.obligations] == [
        ("step_up", ("urn:chartgate:acr:2", "urn:chartgate:acr:3"))
    ]
    assert weak.context == {"acr": "1"}
    assert document(plain, "ann", "write", context={"acr": 2}).allowed
    too_big = document(plain, "ann", "write", {"size": 500})
    assert too_big.obligations == ()


def test_what_is_said_of_the_action_is_said_of_the_circumstances(plain: Rulings) -> None:
    assert document(plain, "ann", "write", doing={"acr": 2}).allowed
    both = document(plain, "ann", "write", doing={"acr": 2}, context={"acr": 1})
    assert not both.allowed
    claimed = document(plain, "ann", "read", doing={"purpose": "LEGAL"})
    assert claimed.ignored == ("action.purpose",)
    assert claimed.purpose == "WORK"


def test_what_was_believed_of_the_context_is_kept_without_free_text(plain: Rulings) -> None:
    ruling = document(plain, "ann", "read", context={"acr": 3, "ip": "10.0.0.1", "device": "Ann's"})
    assert ruling.context["acr"] == "3"
    assert "device" not in ruling.context
    assert code(document(plain, "ann", "read", context={"ip": "nowhere"})) == "wrong_type"
    assert code(document(plain, "ann", "read", context={"acr": 2.5})) == "wrong_type"


def test_what_is_said_of_a_person_counts_where_it_may(plain: Rulings) -> None:
    said = document(plain, "ann", "read", subject={"clearance": 3, "departments": ["x"]})
    assert said.allowed
    assert said.ignored == ("subject.departments",)
    assert code(document(plain, "ann", "read", subject={"clearance": "high"})) == "wrong_type"


def test_stored_entities_change_between_questions(plain: Rulings) -> None:
    uid = EntityUid("Document", "3")
    assert not document(plain, "ann", "read", id="3").allowed
    plain.update(Entity(uid, {"owner": uid, "size": 1, "tags": CedarSet.of(["open"])}))
    assert document(plain, "ann", "read", id="3").allowed
    plain.update(removed=[uid])
    assert not document(plain, "ann", "read", id="3").allowed
