"""Asking everyone at once says the same as asking everyone one by one; what-can agrees with who-can."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chartgate.adapters.policy_files import load_policy_version
from chartgate.app.explain_question import LOG, Question, decide, judging
from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle
from chartgate.app.policy_words import HERSELF
from chartgate.app.scenarios import CATEGORIES
from chartgate.app.who_can import Holder, who_can
from chartgate.cedar.schema import EntityRef, SetType
from chartgate.cedar.values import CedarSet, RecordValue, Value
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.targets.admissible import record_attributes
from chartgate.targets.formula import All, Any, Formula, HasMember, IsOneOf, Present

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NAMES = ("ann", "ben", "cleo", "dora", "emil", "fay")
PLACES = ("cardiology", "oncology", "psychiatry", "pharmacy", "emergency")
PURPOSES = ("TREAT", "COC", "BTG", "HPAYMT", "PATADMIN", "HCOMPL", "HSYSADMIN", "HTEST")
ACTIONS = ("view", "view_summary", "create", "update", "delete", "export")

# Policies that say what the shipped ones do not: times, people by name, other departments' rules.
STRANGE = """
@id("ann_alone") @clause("x")
permit (principal == User::"ann", action == Action::"view", resource)
when { context.purpose == Purpose::"TREAT" };

@id("the_night_shift") @clause("x")
permit (principal in Role::"nurse", action == Action::"view", resource)
when { context.now < datetime("2026-11-22T13:30:00Z") }
when { principal.departments.contains(Department::"emergency") };

@id("two_departments") @clause("x")
forbid (principal, action == Action::"view", resource)
when {
  principal.departments.containsAll([Department::"oncology", Department::"cardiology"]) &&
  !principal.references.contains("T-1")
};

@id("not_for_the_writer") @clause("x")
forbid (principal, action, resource)
when { resource has author && resource.author == principal }
unless { principal in Role::"physician" };
"""


@pytest.fixture(scope="module")
def versions(project_root: Path) -> dict[str, PolicyVersion]:
    shipped = load_policy_version(project_root / "policies")
    strange = Bundle({**shipped.bundle.files, "roles/strange.cedar": STRANGE})
    return {"shipped": shipped, "strange": open_bundle(strange)}


def people(roles: tuple[str, ...]) -> st.SearchStrategy[tuple[Person, ...]]:
    assignment = st.builds(
        Assignment,
        st.sampled_from(roles),
        st.sampled_from((None, *PLACES)),
        st.sampled_from((NOW - HOUR, NOW + HOUR, NOW)),
        st.sampled_from((None, None, NOW + HOUR, NOW + 2 * HOUR, NOW)),
        st.sampled_from((None, "T-1", "T-2")),
        st.sampled_from((None, None, "p")),
    )
    held = st.lists(assignment, max_size=3).map(tuple)
    person = st.tuples(held, st.sampled_from((True, True, True, False)))
    return st.lists(person, min_size=len(NAMES), max_size=len(NAMES)).map(
        lambda found: tuple(
            Person(name, name, name, active, assignments)
            for name, (assignments, active) in zip(NAMES, found, strict=True)
        )
    )


def uids(kind: str, names: tuple[str, ...]) -> st.SearchStrategy[CedarSet]:
    return st.lists(st.sampled_from(names), max_size=3).map(
        lambda found: CedarSet.of(EntityUid(kind, name) for name in found)
    )


MEMBERS = {
    "Department": PLACES,
    "User": NAMES,
    "Patient": ("p", "q"),
    "AgeBand": ("child", "adult"),
}


def records(version: PolicyVersion) -> st.SearchStrategy[dict[str, Value | None]]:
    """A record with everything the schema knows of one; what is not a set may be absent."""
    made: dict[str, st.SearchStrategy[Value | None]] = {}
    for name, attribute in record_attributes(version.schema).items():
        match attribute.type:
            case SetType(EntityRef(kind)):
                made[name] = uids(kind, MEMBERS[kind])
            case EntityRef(kind) if kind in MEMBERS:
                values = [EntityUid(kind, member) for member in MEMBERS[kind]]
                made[name] = st.sampled_from((None, *values))
    return st.fixed_dictionaries(made)


def one_by_one(
    version: PolicyVersion, person: Person, question: Question, known: Mapping[str, Value | None]
) -> dict[str, int]:
    """purpose -> what the person reaches, by the reference meaning."""
    record = RecordValue({k: v for k, v in known.items() if v is not None})
    found = {}
    for purpose in PURPOSES:
        asked = Question(question.action, question.labels, purpose, question.at, record)
        rank = decide(judging(version, person, asked), version.policies).rank
        if rank:
            found[purpose] = rank
    return found


def all_at_once(holders: tuple[Holder, ...]) -> dict[str, dict[str, int]]:
    return {
        holder.person.name: {
            purpose: max(h.rank for h in holder.holdings if purpose in h.purposes)
            for h in holder.holdings
            for purpose in h.purposes
            if purpose in PURPOSES
        }
        for holder in holders
        if any(purpose in PURPOSES for h in holder.holdings for purpose in h.purposes)
    }


def holds(formula: Formula, record: Mapping[str, Value | None], name: str) -> bool:
    """Whether a record is one that the formula means; the person stands for herself."""
    her = EntityUid("User", name)
    match formula:
        case All(parts):
            return all(holds(part, record, name) for part in parts)
        case Any(parts):
            return any(holds(part, record, name) for part in parts)
        case Present(attribute, negated):
            return (record[attribute] is None) == negated
        case IsOneOf(attribute, values, negated):
            value = record[attribute]
            named = {her if v == EntityUid("User", HERSELF) else v for v in values}
            return value is not None and (value in named) != negated
        case HasMember(attribute, values, negated):
            members = record[attribute]
            assert isinstance(members, CedarSet)
            named = {her if v == EntityUid("User", HERSELF) else v for v in values}
            return any(v in members for v in named) != negated
    raise AssertionError(f"not a formula of these policies: {formula}")


@pytest.mark.parametrize("which", ["shipped", "strange"])
@given(data=st.data())
def test_who_can_equals_asking_everyone_one_by_one(
    versions: dict[str, PolicyVersion], which: str, data: st.DataObject
) -> None:
    version = versions[which]
    crowd = data.draw(people(tuple(version.roles.roles)))
    known = data.draw(records(version))
    action = data.draw(st.sampled_from(ACTIONS))
    labels = tuple(data.draw(st.lists(st.sampled_from(CATEGORIES), min_size=1, max_size=2)))
    question = Question(action, labels, "", NOW)
    expected = {p.name: one_by_one(version, p, question, known) for p in crowd}
    found = who_can(version, crowd, question, known)
    assert all_at_once(found) == {name: ranks for name, ranks in expected.items() if ranks}


@pytest.mark.parametrize("which", ["shipped", "strange"])
@given(data=st.data())
def test_what_is_left_open_is_told_as_the_records_it_holds_for(
    versions: dict[str, PolicyVersion], which: str, data: st.DataObject
) -> None:
    version = versions[which]
    crowd = data.draw(people(tuple(version.roles.roles)))
    record = data.draw(records(version))
    told = data.draw(st.sets(st.sampled_from(sorted(record))))
    action = data.draw(st.sampled_from(("view", "create", "update")))
    question = Question(action, (data.draw(st.sampled_from(CATEGORIES)),), "", NOW)
    found = who_can(version, crowd, question, {name: record[name] for name in told})
    by_name = {holder.person.name: holder for holder in found}
    for person in crowd:
        expected = one_by_one(version, person, question, record)
        holdings = by_name[person.name].holdings if person.name in by_name else ()
        got = {
            purpose: max(
                h.rank
                for h in holdings
                if purpose in h.purposes and holds(h.when, record, person.name)
            )
            for h in holdings
            if holds(h.when, record, person.name)
            for purpose in h.purposes
            if purpose in PURPOSES
        }
        assert got == expected


@pytest.mark.parametrize("which", ["shipped", "strange"])
@given(data=st.data())
def test_until_is_the_first_instant_at_which_it_is_less(
    versions: dict[str, PolicyVersion], which: str, data: st.DataObject
) -> None:
    version = versions[which]
    crowd = data.draw(people(tuple(version.roles.roles)))
    known = data.draw(records(version))
    question = Question("view", (data.draw(st.sampled_from(CATEGORIES)),), "", NOW)
    # Everything here begins and ends at a full or a half hour.
    later = [NOW + timedelta(minutes=m) for m in (1, 29, 30, 59, 60, 89, 90, 119, 120, 180)]
    for holder in who_can(version, crowd, question, known)[:2]:
        for h in holder.holdings[:1]:
            lost = next(
                (
                    at
                    for at in later
                    if one_by_one_at(version, holder.person, question, known, h.purposes[0], at)
                    < h.rank
                ),
                None,
            )
            assert h.until == lost


def one_by_one_at(
    version: PolicyVersion,
    person: Person,
    question: Question,
    known: Mapping[str, Value | None],
    purpose: str,
    at: datetime,
) -> int:
    record = RecordValue({k: v for k, v in known.items() if v is not None})
    asked = Question(question.action, question.labels, purpose, at, record)
    return decide(judging(version, person, asked), version.policies).rank


@pytest.mark.parametrize("which", ["shipped", "strange"])
@given(data=st.data())
def test_what_ends_it_does_end_it(
    versions: dict[str, PolicyVersion], which: str, data: st.DataObject
) -> None:
    version = versions[which]
    crowd = data.draw(people(tuple(version.roles.roles)))
    known = data.draw(records(version))
    question = Question("view", (data.draw(st.sampled_from(CATEGORIES)),), "", NOW)
    for holder in who_can(version, crowd, question, known):
        for h in holder.holdings:
            assert h.endings
            for ending in h.endings:
                left = Person(
                    holder.person.uid,
                    holder.person.name,
                    holder.person.name,
                    True,
                    tuple(a for a in holder.person.assignments if a not in ending.assignments),
                )
                then = dict(known)
                if ending.out_of is not None:
                    members = known[ending.out_of]
                    assert isinstance(members, CedarSet)
                    then[ending.out_of] = CedarSet.of(
                        v for v in members if v != EntityUid("User", left.name)
                    )
                assert one_by_one_at(version, left, question, then, h.purposes[0], NOW) < h.rank


@settings(max_examples=20)
@given(data=st.data())
def test_who_may_read_the_log_is_asked_the_same_way(
    versions: dict[str, PolicyVersion], data: st.DataObject
) -> None:
    version = versions["shipped"]
    crowd = data.draw(people(("privacy_officer", "it_support_dba", "nurse")))
    question = Question("read_audit", (), "", NOW)
    found = all_at_once(who_can(version, crowd, question, {}))
    assert LOG.type == "AuditLog"
    expected = {p.name: one_by_one(version, p, question, {}) for p in crowd}
    assert found == {name: ranks for name, ranks in expected.items() if ranks}
