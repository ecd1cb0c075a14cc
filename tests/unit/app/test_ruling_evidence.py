"""The log never says less than was answered; an answer may hold PHI unless nothing leads to any."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from chartgate.adapters.policy_files import load_data_map, load_policy_version
from chartgate.app.evaluation_events import RESOURCE, evaluation_events
from chartgate.app.patient_record import PatientRecord
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.ruling import Ruling
from chartgate.app.ruling_shape import leads_to_patient
from chartgate.app.rulings import Rulings
from chartgate.app.standing import PersonStandings
from chartgate.app.tokens import PatientTokens
from chartgate.cedar.schema import Attribute, EntityRef, EntityType, RecordType, SetType
from chartgate.cedar.values import CedarSet
from chartgate.model.event import Evaluation, EvaluationItem, decode
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.model.service import EVERYTHING

AT = "2026-09-21T14:13:20.000000Z"
NOW = 1_790_000_000_000
TOKENS = PatientTokens({2026: b"k" * 32}, "hospital")
CODER = Assignment("billing_coder", "billing", datetime(2020, 1, 1, tzinfo=UTC), None)
KIM = Person("uid-kim", "kim", "Kim", True, (CODER,))
FACTS = PatientRecord(
    {
        "patient": EntityUid("Patient", "7"),
        "departments": CedarSet.of([EntityUid("Department", "billing")]),
        "queues": CedarSet.of([EntityUid("Department", "billing")]),
        "care_team": CedarSet.of(()),
        "age_bands": CedarSet.of([EntityUid("AgeBand", "adult")]),
    },
    (),
)


@pytest.fixture(scope="module")
def version(project_root: Path) -> PolicyVersion:
    return load_policy_version(project_root / "policies")


@pytest.fixture(scope="module")
def rulings(project_root: Path, version: PolicyVersion) -> Rulings:
    data_map = load_data_map(project_root / "maps" / "hospital.toml", version.schema)
    return Rulings(version, PersonStandings({"kim": KIM}, version.roles), data_map=data_map)


def about(**said: object) -> Question:
    resource = Resource("Record", "r", {"patient": "7", **said})
    return Question(Subject("User", "kim"), Action("view_masked"), resource)


def item_of(question: Question, ruling: Ruling) -> EvaluationItem:
    (entry,) = evaluation_events(
        [(question, ruling)], at=AT, node="n", service="s", channel="https", request="r",
        tokens=TOKENS,
    )  # fmt: skip
    event = decode(entry)
    assert isinstance(event, Evaluation)
    (item,) = event.items
    return item


def test_of_several_fields_of_a_category_the_log_holds_the_one_that_shows_most(
    rulings: Rulings,
) -> None:
    # of two columns of a category, one is in a table of whose rows she sees nothing
    fields = ["patient.home_department", "condition.code", "staff.title", "encounter.class"]
    asked = {name: about(fields=[name]) for name in fields}
    alone = {name: rulings.rule(q, EVERYTHING, FACTS, NOW) for name, q in asked.items()}
    every = rulings.rule(about(fields=fields), EVERYTHING, FACTS, NOW)
    assert every.fields == {name: ruling.fields[name] for name, ruling in alone.items()}
    highest: dict[str, str] = {}
    order = ["withheld", "masked", "summary", "full"]
    for ruling in alone.values():
        for category, level in ruling.levels.items():
            known = highest.get(category, "withheld")
            highest[category] = max(known, level, key=order.index)
    assert highest != every.levels, "no example of what the test is about"
    assert item_of(about(fields=fields), every).levels == highest


def test_a_category_asked_for_twice_hides_nothing_of_what_a_field_showed(rulings: Rulings) -> None:
    asked = about(category="psychotherapy_notes", fields={"mine": "scheduling"})
    item = item_of(asked, rulings.rule(asked, EVERYTHING, FACTS, NOW))
    assert set(item.levels) == {"psychotherapy_notes", "scheduling"}
    assert item.levels["psychotherapy_notes"] == "withheld"


@pytest.mark.parametrize("name", ["Kim", "kim ", "k\u0131m", "stranger"])
def test_somebody_without_an_account_is_on_record_as_a_token(rulings: Rulings, name: str) -> None:
    asked = replace_subject(about(category="labs"), name)
    item = item_of(asked, rulings.rule(asked, EVERYTHING, FACTS, NOW))
    assert (item.person, item.reason) == ("", "unknown_subject")
    assert item.subject == TOKENS.token(RESOURCE, f"User:{name}", year=2026)
    known = about(category="labs")
    assert item_of(known, rulings.rule(known, EVERYTHING, FACTS, NOW)).subject == ""


def replace_subject(question: Question, name: str) -> Question:
    return msgspec.structs.replace(question, subject=Subject("User", name))


def test_what_leads_to_no_patient_is_no_phi(version: PolicyVersion, rulings: Rulings) -> None:
    schema = version.schema
    assert not leads_to_patient(schema, "AuditLog")
    assert all(leads_to_patient(schema, name) for name in ("Record", "Patient", "User", "Nobody"))
    answer = rulings.rule(
        Question(Subject("User", "kim"), Action("read_audit"), Resource("AuditLog", "log")),
        EVERYTHING, None, NOW,
    )  # fmt: skip
    assert not answer.is_phi
    ways = {
        "Chart": EntityType("Chart", {"of": Attribute(SetType(EntityRef("Patient")))}),
        "Page": EntityType("Page", {}, frozenset({"Chart"})),
        "Tagged": EntityType("Tagged", {}, tags=EntityRef("Page")),
        "Deep": EntityType(
            "Deep", {"a": Attribute(RecordType({"b": Attribute(EntityRef("Tagged"))}))}
        ),
    }
    wider = replace(schema, entities={**schema.entities, **ways})
    assert all(leads_to_patient(wider, name) for name in ways)
    nothing = {k: v for k, v in schema.entities.items() if k != "Patient"}
    assert leads_to_patient(replace(schema, entities=nothing), "AuditLog")


@pytest.mark.parametrize("name", ["", " ", "...", "\u200b", "x" * 257, 7, ["Registry"]])
def test_a_disclosure_names_its_recipient_whole_or_is_refused(
    rulings: Rulings, name: object
) -> None:
    asked = msgspec.structs.replace(
        about(category="billing"), action=Action("share"), context={"recipient": name}
    )
    ruling = rulings.rule(asked, EVERYTHING, FACTS, NOW)
    assert ruling.reason is not None
    assert ruling.reason.code in {"recipient_needed", "wrong_type"}
    assert item_of(asked, ruling).recipient == ""
    whole = msgspec.structs.replace(asked, context={"recipient": "\u00e9" * 256})
    assert item_of(whole, rulings.rule(whole, EVERYTHING, FACTS, NOW)).recipient == "\u00e9" * 256
