"""What-can of one person and who-can of everybody tell the same, in every particular.

The two share code, but not what they leave out: what-can drops the policies of other roles before
it asks, who-can asks people who look alike once. Both are also held against the reference meaning.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chartgate.adapters.policy_files import load_policy_version
from chartgate.app.explain_question import VIEWS, Question, decide, judging
from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle
from chartgate.app.policy_words import HERSELF
from chartgate.app.scenarios import CATEGORIES
from chartgate.app.what_can import Ability, grouped, what_can
from chartgate.app.who_can import Holding, who_can
from chartgate.cedar.values import CedarSet, RecordValue, Value
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.targets.formula import All, Any, Formula, HasMember, IsOneOf, Present

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NAMES = ("ann", "ben", "cleo")
PLACES = ("cardiology", "oncology", "pharmacy", "emergency")
RECORD_ACTIONS = ("view", "create", "update", "delete", "export", "share")
OTHER_ACTIONS = (
    "read_audit", "read_audit_technical", "edit_policy", "approve_policy", "activate_policy",
    "administer_services", "approve_grant",
)  # fmt: skip

# A person by name, a forbid on roles together, one on everybody, a clock.
STRANGE = """
@id("ann_alone") @clause("x")
permit (principal == User::"ann", action == Action::"view", resource)
when { context.purpose == Purpose::"TREAT" };

@id("the_night_shift") @clause("x")
permit (principal in Role::"nurse", action == Action::"view", resource)
when { context.now < datetime("2026-11-22T13:30:00Z") };

@id("not_who_bills_as_well") @clause("x")
forbid (principal in Role::"billing_coder", action == Action::"view_summary", resource)
when { principal.departments.contains(Department::"oncology") };

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
        st.sampled_from((NOW - HOUR, NOW, NOW + HOUR)),
        st.sampled_from((None, None, NOW, NOW + HOUR, NOW + 2 * HOUR)),
        st.sampled_from((None, "T-1")),
        st.sampled_from((None, None, "p")),
    )
    held = st.tuples(
        st.lists(assignment, max_size=3).map(tuple), st.sampled_from((True, True, False))
    )
    return st.lists(held, min_size=len(NAMES), max_size=len(NAMES)).map(
        lambda found: tuple(
            Person(name, name, name, active, assignments)
            for name, (assignments, active) in zip(NAMES, found, strict=True)
        )
    )


def uids(kind: str, names: tuple[str, ...]) -> st.SearchStrategy[CedarSet]:
    return st.lists(st.sampled_from(names), max_size=2).map(
        lambda found: CedarSet.of(EntityUid(kind, name) for name in found)
    )


records: st.SearchStrategy[dict[str, Value | None]] = st.fixed_dictionaries(
    {
        "departments": uids("Department", PLACES),
        "queues": uids("Department", PLACES),
        "care_team": uids("User", NAMES),
        "age_bands": uids("AgeBand", ("child", "adult")),
        "patient": st.sampled_from((None, EntityUid("Patient", "p"), EntityUid("Patient", "q"))),
        "department": st.sampled_from((None, *(EntityUid("Department", d) for d in PLACES))),
        "author": st.sampled_from((None, *(EntityUid("User", n) for n in NAMES))),
    }
)


def holds(formula: Formula, record: Mapping[str, Value | None], her: EntityUid) -> bool:
    """Whether the formula means this record; ``HERSELF`` stands for the person."""

    def named(values: Iterable[object]) -> set[object]:
        return {her if value == EntityUid("User", HERSELF) else value for value in values}

    match formula:
        case All(parts):
            return all(holds(part, record, her) for part in parts)
        case Any(parts):
            return any(holds(part, record, her) for part in parts)
        case Present(attribute, negated):
            return (record[attribute] is None) == negated
        case IsOneOf(attribute, values, negated):
            value = record[attribute]
            return value is not None and (value in named(values)) != negated
        case HasMember(attribute, values, negated):
            members = record[attribute]
            assert isinstance(members, CedarSet)
            return any(member in named(values) for member in members) != negated
    raise AssertionError(f"not a formula of these policies: {formula}")


def asked(action: str, category: str | None) -> Question:
    return Question(action, () if category is None else (category,), "", NOW)


def questions() -> list[tuple[str, str | None]]:
    of_records = [(action, category) for action in RECORD_ACTIONS for category in CATEGORIES]
    return [*of_records, *((action, None) for action in OTHER_ACTIONS)]


def told(holdings: Iterable[Holding]) -> set[object]:
    """Everything that is said, in no order; the words for a record may differ, its meaning not."""
    return {
        (
            frozenset(h.purposes),
            h.rank,
            frozenset(h.policies),
            h.through,
            h.until,
            h.unsteady,
            frozenset((e.assignments, e.out_of) for e in h.endings),
        )
        for h in holdings
    }


def by_purpose(
    holdings: Iterable[Holding], record: Mapping[str, Value | None], her: EntityUid
) -> dict[str, int]:
    """purpose -> what is reached of this record."""
    found: dict[str, int] = {}
    for h in holdings:
        if holds(h.when, record, her):
            for purpose in h.purposes:
                found[purpose] = max(h.rank, found.get(purpose, 0))
    return found


@pytest.mark.parametrize("which", ["shipped", "strange"])
@settings(max_examples=max(10, settings().max_examples // 8))
@given(data=st.data())
def test_what_can_is_who_can_asked_for_one_person_and_everything(
    versions: dict[str, PolicyVersion], which: str, data: st.DataObject
) -> None:
    version = versions[which]
    crowd = data.draw(people(tuple(version.roles.roles)))
    person = data.draw(st.sampled_from(crowd))
    record = data.draw(records)
    her = EntityUid("User", person.name)
    abilities = what_can(version, person, at=NOW)
    some = data.draw(st.lists(st.sampled_from(questions()), min_size=4, max_size=4, unique=True))
    for action, category in some:
        ours = [a.holding for a in abilities if (a.action, a.category) == (action, category)]
        theirs = [
            holding
            for holder in who_can(version, crowd, asked(action, category), {})
            if holder.person == person
            for holding in holder.holdings
        ]
        assert told(ours) == told(theirs)
        assert by_purpose(ours, record, her) == by_purpose(theirs, record, her)


@pytest.mark.parametrize("which", ["shipped", "strange"])
@settings(max_examples=max(10, settings().max_examples // 8))
@given(data=st.data())
def test_what_can_leaves_nothing_out_and_adds_nothing(
    versions: dict[str, PolicyVersion], which: str, data: st.DataObject
) -> None:
    version = versions[which]
    person = data.draw(people(tuple(version.roles.roles)))[0]
    record = data.draw(records)
    her = EntityUid("User", person.name)
    row = RecordValue({name: value for name, value in record.items() if value is not None})
    abilities = what_can(version, person, at=NOW)
    # What the person usually acts for, so that there is something to forbid; and any other.
    usual = [version.roles.roles[a.role].default_purpose for a in person.assignments]
    some = st.sampled_from([*filter(None, usual), "TREAT"])
    purposes = {data.draw(some), data.draw(st.sampled_from(sorted(version.roles.purposes)))}
    # Every action, on some of the categories.
    categories = data.draw(st.sets(st.sampled_from(CATEGORIES), min_size=5, max_size=5))
    for action, category in questions():
        if category is not None and category not in categories:
            continue
        ours = [a.holding for a in abilities if (a.action, a.category) == (action, category)]
        found = by_purpose(ours, record, her)
        for purpose in purposes:
            question = Question(
                action, () if category is None else (category,), purpose, NOW,
                RecordValue() if category is None else row,
            )  # fmt: skip
            reached = decide(judging(version, person, question), version.policies).rank
            assert found.get(purpose, 0) == reached


def test_everything_that_can_be_asked_is_asked(versions: dict[str, PolicyVersion]) -> None:
    """Where policy permits everything, everything is told: no action and no category is forgotten."""
    shipped = versions["shipped"]
    actions = sorted({action for action, _ in questions()})
    assert {uid.id for uid in shipped.schema.actions} - (VIEWS.keys() - {"view"}) == set(actions)
    files = {n: t for n, t in shipped.bundle.files.items() if not n.endswith(".cedar")}
    listed = ", ".join(f'Action::"{action}"' for action in actions)
    files["all.cedar"] = f'@id("all") permit (principal, action in [{listed}], resource);'
    person = Person("ann", "ann", "ann", True, (Assignment("nurse", None, NOW - HOUR, None),))
    abilities = what_can(open_bundle(Bundle(files)), person, at=NOW)
    assert {(a.action, a.category) for a in abilities} == set(questions())


@settings(max_examples=max(10, settings().max_examples // 8))
@given(data=st.data())
def test_telling_categories_together_loses_none(
    versions: dict[str, PolicyVersion], data: st.DataObject
) -> None:
    version = versions["shipped"]
    person = data.draw(people(tuple(version.roles.roles)))[0]
    abilities = what_can(version, person, at=NOW)

    def said(one: Ability, category: str | None) -> object:
        return one.action, category, one.holding.rank, one.holding.purposes, one.holding.when

    separate = {said(one, one.category) for one in abilities}
    together = {
        said(Ability(g.action, None, g.holding), category)
        for g in grouped(abilities)
        for category in g.categories or (None,)
    }
    assert together == separate
