"""A request is decided as one, ends where it is to end, and is told to the log in the same order."""

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chartgate.adapters.policy_files import load_data_map, load_policy_version
from chartgate.app.authzen_paging import Page as Wanted
from chartgate.app.authzen_search import (
    ActionSearch,
    AnySearch,
    ResourceSearch,
    Sought,
    SubjectSearch,
)
from chartgate.app.authzen_search import Wanted as Kind
from chartgate.app.evaluation_events import Keys
from chartgate.app.node_asked import Asked, Caller, Readiness, Semantic
from chartgate.app.node_deciding import Stamps, decide, entries, patients_of, releases
from chartgate.app.node_searching import (
    Page,
    chunks,
    needs_patients,
    question_of,
    record_chunks,
)
from chartgate.app.node_searching import entries as search_entries
from chartgate.app.patient_record import PatientRecord
from chartgate.app.policy_bundle import Bundle, open_bundle
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.ruling import Ruling
from chartgate.app.rulings import Rulings
from chartgate.app.searches import Chunk, Result
from chartgate.app.standing import PersonStandings
from chartgate.cedar.values import CedarSet
from chartgate.model.event import Evaluation, Search, decode
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.model.service import EVERYTHING, Service

NOW = 1_790_000_000_000
AT = "2026-09-21T14:13:20.000000Z"
CALLER = Caller(Service("s_1", "app", True, EVERYTHING), "https")
NAMES = frozenset({"view", "read", "Record", "User", "chart"})


def person(name: str, role: str) -> Person:
    held = Assignment(role, "cardiology", datetime(2020, 1, 1, tzinfo=UTC), None)
    return Person(f"p_{name}", name, name, True, (held,))


PEOPLE = {"ann": person("ann", "physician"), "cy": person("cy", "billing_coder")}


def record(place: str) -> PatientRecord:
    known = {
        "patient": EntityUid("Patient", "1"),
        "care_team": CedarSet.of(()),
        "departments": CedarSet.of((EntityUid("Department", place),)),
        "queues": CedarSet.of(()),
        "age_bands": CedarSet.of(()),
    }
    return PatientRecord(known, ())


@pytest.fixture(scope="module")
def rulings(project_root: Path) -> Rulings:
    version = load_policy_version(project_root / "policies")
    data_map = load_data_map(project_root / "maps" / "hospital.toml", version.schema)
    return Rulings(version, PersonStandings(PEOPLE, version.roles), data_map=data_map)


FACTS = {"1": record("cardiology"), "2": record("oncology")}


def labs(who: str, patient: str | None = "1", category: str = "labs") -> Question:
    said = {"category": category} if patient is None else {"patient": patient, "category": category}
    return Question(Subject("User", who), Action("view"), Resource("Record", "r", said))


def test_the_patients_of_a_request_are_asked_for_once(rulings: Rulings) -> None:
    asked = (labs("ann"), labs("cy"), labs("ann", "2"), labs("ann", None))
    assert patients_of(rulings, asked) == ["1", "2"]
    assert patients_of(rulings, asked[:1]) == ["1"]
    assert patients_of(rulings, asked[3:]) == []


@pytest.mark.parametrize(
    ("semantic", "expected"),
    [
        (Semantic.EXECUTE_ALL, [True, True, False, True]),
        (Semantic.DENY_ON_FIRST_DENY, [True, True, False]),
        (Semantic.PERMIT_ON_FIRST_PERMIT, [True]),
    ],
)
def test_a_batch_ends_where_its_semantic_says(
    rulings: Rulings, semantic: Semantic, expected: list[bool]
) -> None:
    questions = (labs("ann"), labs("ann", None, "technical"), labs("cy"), labs("ann"))
    questions = (labs("ann"), labs("ann"), labs("cy"), labs("ann"))
    found = decide(rulings, Asked(questions, "r", semantic), EVERYTHING, FACTS, NOW)
    assert [ruling.allowed for ruling in found] == expected


@pytest.mark.parametrize("semantic", list(Semantic))
def test_a_question_without_a_patient_needs_no_facts(rulings: Rulings, semantic: Semantic) -> None:
    for questions in ((labs("ann", None),), (labs("ann", None), labs("ann", None))):
        found = decide(rulings, Asked(questions, "r", semantic), EVERYTHING, {}, NOW)
        assert {r.reason.code for r in found if r.reason is not None} == {"patient_needed"}


def test_the_log_has_what_was_decided_in_its_order(rulings: Rulings) -> None:
    asked = Asked((labs("ann"), labs("cy"), labs("ann")), "r-7", Semantic.DENY_ON_FIRST_DENY, "t")
    found = decide(rulings, asked, EVERYTHING, FACTS, NOW)
    (entry,) = entries(asked, found, CALLER, at=AT, node="n", tokens=Keys(), names=NAMES)
    event = decode(entry)
    assert isinstance(event, Evaluation)
    assert (event.request, event.trace, event.service) == ("r-7", "t", "s_1")
    assert [item.allowed for item in event.items] == [True, False]


def test_what_names_a_patient_or_shows_anything_releases() -> None:
    quiet = Ruling(allowed=True, is_phi=False)
    assert not releases([quiet])
    assert releases([quiet, Ruling(allowed=False)])
    assert releases([Ruling(allowed=False, is_phi=False, patient="1")])
    assert releases([Ruling(allowed=False, is_phi=False, levels={"technical": "full"})])


def test_instants_are_written_as_events_have_them() -> None:
    stamps = Stamps()
    moment = 1_767_225_600_000_000_000
    assert stamps.of(moment) == "2026-01-01T00:00:00.000000Z"
    assert stamps.of(moment + 1_234_567) == "2026-01-01T00:00:00.001234Z"
    assert stamps.of(moment + 61_000_000_000) == "2026-01-01T00:01:01.000000Z"


def test_a_node_is_ready_when_nothing_stands_in_the_way() -> None:
    assert Readiness()
    assert not Readiness(("no link",))


# --- searches ----------------------------------------------------------------------------


def sought(query: AnySearch, limit: int = 10, after: str | None = None) -> Sought:
    return Sought(query, Wanted(limit, after), b"")


WHO = SubjectSearch(Kind("User"), Action("view"), labs("").resource)
WHICH = ResourceSearch(Subject("User", "ann"), Action("view"), Kind("Record", {"category": "labs"}))
WHAT = ActionSearch(Subject("User", "ann"), labs("").resource)


def page_of(found: Iterator[Chunk], limit: int = 10) -> Page:
    page = Page(limit)
    for chunk in found:
        if page.add(chunk):
            break
    return page


def event_of(rulings: Rulings, wanted: Sought, page: Page) -> Search:
    (entry,) = search_entries(
        rulings, wanted, question_of(wanted.query), page, CALLER,
        at=AT, at_ms=NOW, node="n", request="s", trace="", tokens=Keys(), names=NAMES,
    )  # fmt: skip
    event = decode(entry)
    assert isinstance(event, Search)
    return event


def test_who_may_is_recorded_with_everybody_found(rulings: Rulings) -> None:
    wanted = sought(WHO)
    found = chunks(rulings, wanted, question_of(WHO), EVERYTHING, FACTS["1"], NOW)
    page = page_of(found)
    assert page.found.names == ("ann",)
    assert not page.found.more
    event = event_of(rulings, wanted, page)
    assert (event.sought, event.persons, event.action) == ("subject", ("p_ann",), "view")
    assert event.patient == "~patient:31~"
    assert event.purpose == "TREAT"


def test_what_she_may_is_recorded_as_hers(rulings: Rulings) -> None:
    wanted = sought(WHAT, limit=1)
    page = page_of(chunks(rulings, wanted, question_of(WHAT), EVERYTHING, FACTS["1"], NOW), limit=1)
    assert page.found.more
    event = event_of(rulings, wanted, page)
    assert (event.sought, event.person, event.results) == ("action", "p_ann", 1)
    rest = sought(WHAT, after=page.found.names[-1])
    more = page_of(chunks(rulings, rest, question_of(WHAT), EVERYTHING, FACTS["1"], NOW))
    assert "view" in {*page.found.names, *more.found.names}


async def test_patients_that_are_found_are_recorded(rulings: Rulings) -> None:
    question = question_of(WHICH)
    assert needs_patients(rulings, WHICH, question)
    assert not needs_patients(rulings, WHO, question_of(WHO))

    async def patients() -> AsyncIterator[Sequence[tuple[str, PatientRecord]]]:
        yield [("1", FACTS["1"]), ("2", FACTS["2"])]
        yield [("3", FACTS["1"])]

    page = Page(10)
    async for chunk in record_chunks(rulings, question, EVERYTHING, NOW, patients()):
        page.add(chunk)
    assert page.found.names == ("1", "3")
    assert page.found.properties[0]["category"] == "labs"
    event = event_of(rulings, sought(WHICH), page)
    assert (event.sought, event.person) == ("resource", "p_ann")
    assert event.patients == ("~patient:31~", "~patient:33~")


def test_stored_resources_are_found_by_asking(rulings: Rulings) -> None:
    version = open_bundle(
        Bundle(
            {
                "schema.cedarschema": "entity user; entity chart; "
                "action read appliesTo { principal: user, resource: chart };",
                "a.cedar": '@id("a") permit (principal, action, resource);',
                "roles.toml": "",
                "purposes.toml": "",
            }
        )
    )
    from chartgate.cedar.entities import Entity

    plain = Rulings(
        version,
        PersonStandings({}, version.roles),
        entities=[Entity(EntityUid("user", "u")), Entity(EntityUid("chart", "c"))],
    )
    query = ResourceSearch(Subject("user", "u"), Action("read"), Kind("chart"))
    wanted = sought(query)
    page = page_of(chunks(plain, wanted, question_of(query), EVERYTHING, None, NOW))
    assert page.found.names == ("c",)
    event = event_of(plain, wanted, page)
    assert (event.person, event.patients, event.resource_type) == ("", (), "chart")
    nothing = event_of(plain, wanted, Page(1))
    assert (nothing.results, nothing.purpose) == (0, "")


def test_a_name_that_nobody_knows_is_not_repeated(rulings: Rulings) -> None:
    query: Any = SubjectSearch(Kind("User"), Action("4711 Smith"), labs("").resource)
    assert event_of(rulings, sought(query), Page(1)).action == "unknown"


def test_a_page_that_took_long_says_where_to_go_on() -> None:
    page = Page(2)
    assert not page.add(Chunk((Result("User", "a"),), "m"))
    page.end_at(Chunk((), "n"))
    assert (page.found.names, page.found.more, page.found.after) == (("a",), True, "n")
    assert page.add(Chunk((Result("User", "o"), Result("User", "p")), "p"))
    assert (page.found.names, page.found.more, page.found.after) == (("a", "o"), True, "")
