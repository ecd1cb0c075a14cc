"""What is asked of the source about one patient, and what its answer means."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chartgate.adapters.policy_files import load_data_map, load_policy_version
from chartgate.app.explain import explain
from chartgate.app.explain_change import suggestions
from chartgate.app.explain_question import Question
from chartgate.app.patient_record import PatientRecord, patient_query, patient_record
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.cedar.schema import Schema
from chartgate.cedar.values import CedarSet, RecordValue
from chartgate.datamap.model import DataMap, Relation, RowLabel
from chartgate.errors import Misconfigured
from chartgate.model.principal import Assignment, EntityUid, Person

SETS = ("care_team", "departments", "queues", "age_bands")


@pytest.fixture(scope="module")
def version(project_root: Path) -> PolicyVersion:
    return load_policy_version(project_root / "policies")


@pytest.fixture(scope="module")
def schema(version: PolicyVersion) -> Schema:
    return version.schema


@pytest.fixture(scope="module")
def hospital(project_root: Path, schema: Schema) -> DataMap:
    return load_data_map(project_root / "maps" / "hospital.toml", schema)


def test_the_map_says_what_is_asked_and_the_key_is_the_one_parameter(
    hospital: DataMap, schema: Schema
) -> None:
    query = patient_query(hospital, schema)
    assert query.sets == SETS
    assert query.labels == ("protected_person",)
    assert query.text.count("$1") == 1
    assert query.text.endswith('p."patient_id")::pg_catalog.text = $1) AS "__cg_patient"')
    assert "{patient}" not in query.text
    # The source's search path holds no schema: every table is named with its own.
    assert "FROM public.care_team ct" in query.text


@pytest.mark.parametrize("name", ["synthea.toml", "smart-r4.toml"])
def test_every_shipped_map_can_be_asked(project_root: Path, schema: Schema, name: str) -> None:
    query = patient_query(load_data_map(project_root / "maps" / name, schema), schema)
    assert set(query.sets) == set(SETS)


def test_the_answer_is_read_as_policies_read_a_row(hospital: DataMap, schema: Schema) -> None:
    query = patient_query(hospital, schema)
    row = (["mwelby", "nadams"], ["cardiology", "cardiology"], [], ["adult"], True)
    record = patient_record(query, schema, "7", row)
    assert record.known == {
        "patient": EntityUid("Patient", "7"),
        "care_team": CedarSet.of([EntityUid("User", "mwelby"), EntityUid("User", "nadams")]),
        "departments": CedarSet.of([EntityUid("Department", "cardiology")]),
        "queues": CedarSet.of(()),
        "age_bands": CedarSet.of([EntityUid("AgeBand", "adult")]),
    }
    assert record.labels == ("protected_person",)


@pytest.mark.parametrize(("answer", "carried"), [(True, True), (False, False), (None, True)])
def test_a_label_that_is_not_surely_absent_counts(
    hospital: DataMap, schema: Schema, answer: bool | None, carried: bool
) -> None:
    query = patient_query(hospital, schema)
    record = patient_record(query, schema, "7", ([], [], [], [], answer))
    assert record.labels == (("protected_person",) if carried else ())
    assert "IS NOT FALSE" in query.text


def test_the_patients_labels_come_behind_those_asked_about_and_once() -> None:
    record = PatientRecord({}, ("protected_person",))
    assert record.labels_with(("labs",)) == ("labs", "protected_person")
    assert record.labels_with(("protected_person", "labs")) == ("protected_person", "labs")
    assert record.labels_with(()) == ()


@pytest.mark.parametrize("text", ["d.id = {patient} AND d.x = this.x", 'd.y = "this".y', "THIS.z"])
def test_what_depends_on_the_row_stays_open(hospital: DataMap, schema: Schema, text: str) -> None:
    of_row = Relation("queues", "Set<Department>", "department d", text, "d.code")
    mixed = replace(hospital, relations={**hospital.relations, "queues": of_row})
    query = patient_query(mixed, schema)
    assert query.sets == ("care_team", "departments", "age_bands")
    assert "queues" not in patient_record(query, schema, "7", ([], [], [], False)).known


def test_a_patient_label_that_depends_on_the_row_is_refused(
    hospital: DataMap, schema: Schema
) -> None:
    label = RowLabel("protected_person", "this.vip")
    with pytest.raises(Misconfigured, match="patient label protected_person depends on the row"):
        patient_query(replace(hospital, patient_labels=(label,)), schema)


def test_several_conditions_of_one_label_count_each(hospital: DataMap, schema: Schema) -> None:
    both = (*hospital.patient_labels, RowLabel("protected_person", "{patient} < 0"))
    query = patient_query(replace(hospital, patient_labels=both), schema)
    assert query.labels == ("protected_person",)
    assert " OR " in query.text


def test_what_the_schema_does_not_know_is_not_asked(hospital: DataMap, schema: Schema) -> None:
    strange = Relation("friends", "Set<User>", "staff s", "true", "s.username")
    query = patient_query(
        replace(hospital, relations={"friends": strange}, patient_labels=()), schema
    )
    assert (query.sets, query.labels) == ((), ())
    assert query.text.startswith("SELECT true FROM ")


@pytest.mark.parametrize("looked_up", [False, True])
def test_a_suggestion_names_no_department_that_was_looked_up(
    version: PolicyVersion, looked_up: bool
) -> None:
    at = datetime(2026, 11, 22, 12, tzinfo=UTC)
    held = (Assignment("physician", "cardiology", datetime(2020, 1, 1, tzinfo=UTC), None),)
    record = {
        name: CedarSet.of(EntityUid("Department", d) for d in members)
        for name, members in {"departments": ["oncology"], "queues": []}.items()
    }
    none = {name: CedarSet.of(()) for name in ("care_team", "age_bands")}
    question = Question(
        "view", ("labs",), "TREAT", at,
        RecordValue({**record, **none, "patient": EntityUid("Patient", "7")}),
        hidden=frozenset(record) if looked_up else frozenset(),
    )  # fmt: skip
    found = suggestions(version, explain(version, Person("a", "a", "a", True, held), question))
    words = [change.words for one in found for change in one.changes]
    assert any("physician in oncology" in text for text in words) != looked_up
    assert any("physician in a department" in text for text in words) == looked_up
    assert not (looked_up and any("oncology" in text for text in words))
