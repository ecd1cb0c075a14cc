"""Searches answer what evaluations answer, all of it, in one order, from wherever they go on."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chartgate.adapters.policy_files import load_data_map, load_policy_version
from chartgate.app.patient_record import PatientRecord
from chartgate.app.policy_bundle import Bundle, open_bundle
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.rulings import Rulings
from chartgate.app.searches import Chunk, actions, is_of_records, records, resources, subjects
from chartgate.app.standing import PersonStandings
from chartgate.cedar.entities import Entity
from chartgate.cedar.values import CedarSet
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.model.service import EVERYTHING, Scope

BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
NOW = 1_790_000_000_000


def person(name: str, *, active: bool = True, **held: str) -> Person:
    roles = tuple(Assignment(role, place, BEGIN, None) for role, place in held.items())
    return Person(f"uid-{name}", name, name, active, roles)


PEOPLE = {
    f"p{n:03}": person(
        f"p{n:03}",
        active=n % 7 != 0,
        **(
            {"physician": ("cardiology", "oncology")[n % 2]}
            if n % 3
            else {"billing_coder": "billing"}
        ),
    )
    for n in range(200)
}


def record(key: str, place: str) -> tuple[str, PatientRecord]:
    def of(*names: str) -> CedarSet:
        return CedarSet.of(EntityUid("Department", name) for name in names)

    known = {
        "patient": EntityUid("Patient", key),
        "care_team": CedarSet.of(()),
        "departments": of(place),
        "queues": of(),
        "age_bands": CedarSet.of(()),
    }
    return key, PatientRecord(known, ())


@pytest.fixture(scope="module")
def rulings(project_root: Path) -> Rulings:
    version = load_policy_version(project_root / "policies")
    data_map = load_data_map(project_root / "maps" / "hospital.toml", version.schema)
    return Rulings(version, PersonStandings(PEOPLE, version.roles), data_map=data_map)


LABS = Question(
    Subject("User", "ignored"),
    Action("view"),
    Resource("Record", "", {"patient": "1", "category": "labs"}),
)


def ids(chunks: Iterator[Chunk]) -> list[str]:
    return [result.id for chunk in chunks for result in chunk.results]


def test_everybody_who_may_is_found_and_nobody_else(rulings: Rulings) -> None:
    facts = record("1", "cardiology")[1]
    found = ids(subjects(rulings, LABS, EVERYTHING, facts, NOW))
    expected = [
        name
        for name in sorted(PEOPLE)
        if rulings.rule(
            Question(Subject("User", name), LABS.action, LABS.resource), EVERYTHING, facts, NOW
        ).allowed
    ]
    assert found == expected
    assert 10 < len(found) < 100


def test_a_search_goes_on_from_any_chunk(rulings: Rulings) -> None:
    facts = record("1", "cardiology")[1]
    whole = list(subjects(rulings, LABS, EVERYTHING, facts, NOW))
    assert len(whole) > 2
    for number, chunk in enumerate(whole):
        rest = subjects(rulings, LABS, EVERYTHING, facts, NOW, after=chunk.after)
        assert ids(rest) == [r.id for c in whole[number + 1 :] for r in c.results]


def test_a_search_of_a_type_that_nobody_is_of_is_empty(rulings: Rulings) -> None:
    other = Question(Subject("Robot", ""), LABS.action, LABS.resource)
    assert ids(subjects(rulings, other, EVERYTHING, None, NOW)) == []


def test_the_actions_are_those_that_are_allowed(rulings: Rulings) -> None:
    facts = record("1", "cardiology")[1]
    subject = Subject("User", "p002")
    found = ids(actions(rulings, subject, LABS.resource, {}, EVERYTHING, facts, NOW))
    names = sorted({name for name, _, what in rulings.shape.askable if what == "Record"})
    assert found == [
        name
        for name in names
        if rulings.rule(
            Question(subject, Action(name), LABS.resource), EVERYTHING, facts, NOW
        ).allowed
    ]
    assert "view" in found
    narrow = Scope(frozenset({"view_masked"}), frozenset("*"), frozenset("*"))
    assert ids(actions(rulings, subject, LABS.resource, {}, narrow, facts, NOW)) == ["view_masked"]
    rest = actions(rulings, subject, LABS.resource, {}, EVERYTHING, facts, NOW, after="view")
    assert ids(rest) == [name for name in found if name > "view"]


def test_the_patients_are_those_whose_record_is_shown(rulings: Rulings) -> None:
    patients = [record(f"{n:04}", ("cardiology", "oncology")[n % 2]) for n in range(300)]
    asked = Question(
        Subject("User", "p002"), Action("view"), Resource("Record", "x", {"category": "labs"})
    )
    assert is_of_records(rulings, asked)
    chunks = list(records(rulings, asked, EVERYTHING, NOW, [patients[:200], patients[200:]]))
    found = [result for chunk in chunks for result in chunk.results]
    assert [r.id for r in found] == [key for n, (key, _) in enumerate(patients) if n % 2 == 0]
    assert found[0].type == "Record"
    assert found[0].properties == {"patient": "0000", "category": "labs"}
    assert found[0].ruling is not None
    assert found[0].ruling.patient == "0000"
    assert [chunk.after for chunk in chunks][-1] == "0299"
    only = Question(
        asked.subject, asked.action, Resource("Record", "", {"category": "labs", "patient": "0004"})
    )
    assert ids(records(rulings, only, EVERYTHING, NOW, [patients])) == ["0004"]


def test_stored_resources_are_found_in_order(project_root: Path) -> None:
    version = open_bundle(
        Bundle(
            {
                "schema.cedarschema": """
entity User; entity Chart = { open: Bool }; entity Other;
action read appliesTo { principal: [User], resource: [Chart], context: {} };""",
                "roles.toml": "",
                "purposes.toml": "",
                "p.cedar": '@id("p") permit (principal, action, resource is Chart) when { resource.open };',
            }
        )
    )
    charts = [Entity(EntityUid("Chart", f"{n:03}"), {"open": n % 2 == 0}) for n in range(150)]
    people = PersonStandings({}, version.roles)
    stored = [Entity(EntityUid("User", "b")), Entity(EntityUid("User", "a"))]
    rulings = Rulings(version, people, entities=(*charts, *stored, Entity(EntityUid("Other", "1"))))
    asked = Question(Subject("User", "a"), Action("read"), Resource("Chart", ""))
    assert not is_of_records(rulings, asked)
    chunks = list(resources(rulings, asked, EVERYTHING, NOW))
    assert [r.id for c in chunks for r in c.results] == [f"{n:03}" for n in range(0, 150, 2)]
    rest = resources(rulings, asked, EVERYTHING, NOW, after=chunks[0].after)
    assert ids(rest) == [r.id for c in chunks[1:] for r in c.results]
    one = Question(asked.subject, asked.action, Resource("Chart", "002"))
    assert ids(subjects(rulings, one, EVERYTHING, None, NOW)) == ["a", "b"]
    shut = Question(asked.subject, asked.action, Resource("Chart", "001"))
    assert ids(subjects(rulings, shut, EVERYTHING, None, NOW)) == []
    nothing: Any = Question(asked.subject, asked.action, Resource("Other", ""))
    assert ids(resources(rulings, nothing, EVERYTHING, NOW)) == []
