"""A ruling on a record is what ``app.levels`` says, for random people, records and policies; and on
the shipped policies it is what the gateway's decision point says.

The expectation is computed by the reference evaluator from the same facts, never by the engine.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartgate.adapters.policy_files import load_data_map, load_policy_version
from chartgate.app.authzen import answer
from chartgate.app.entitlement import DecisionPoint
from chartgate.app.levels import Asking, level_of_labels, may_change
from chartgate.app.patient_record import PatientRecord
from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.rolebook import PurposeRefused, person_entity
from chartgate.app.rulings import Rulings
from chartgate.app.standing import PersonStandings
from chartgate.cedar.entities import Entity
from chartgate.cedar.values import CedarSet, DateTime, RecordValue
from chartgate.datamap.model import DataMap, PatientTable
from chartgate.demo.people import EVERYBODY
from chartgate.model.disclosure import VIEW_ACTIONS, Disclosure
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.model.service import EVERYTHING
from chartgate.targets.admissible import attribute_kinds, set_attributes
from chartgate.targets.compiled import Weighed, compile_policies
from chartgate.targets.entity_store import EntityStore
from chartgate.targets.formula import All, HasMember, IsOneOf, Present
from chartgate.targets.formula import Any as AnyOf
from chartgate.targets.partial import RowShape

BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
AT_MS = 1_780_315_200_000
PLACES = ("east", "west")

SCHEMA = """
entity Category enum ["labs", "notes", "vip"];
entity Purpose in [Purpose];
entity Role in [Role];
entity Department;
entity Patient;
entity User in [Role] = { departments: Set<Department>, references: Set<String>, patients: Set<Patient> };
entity Record = {
  category: Category, patient?: Patient, department?: Department, departments: Set<Department>,
  rank?: Long,
};
type Asked = { purpose: Purpose, now: datetime, source: String };
action view, view_summary, view_masked, update appliesTo {
  principal: [User], resource: [Record], context: Asked };
"""
ROLES = """
[roles.staff]
purposes = ["TREAT", "PAY"]
[roles.nurse]
parents = ["staff"]
default_purpose = "TREAT"
purposes = ["TREAT", "ETREAT"]
[roles.clerk]
parents = ["staff"]
default_purpose = "PAY"
purposes = ["PAY", "TREAT"]
[roles.student]
default_purpose = "TREAT"
purposes = ["TREAT"]
"""
PURPOSES = 'TREAT = []\nETREAT = ["TREAT"]\nPAY = []\n'
MAP = DataMap("clinic", "", "public", PatientTable("p", "id", "id"), {}, {}, (), "map")

_scopes = st.sampled_from(
    ["principal", 'principal == User::"me"', 'principal == User::"you"']
    + [f'principal in Role::"{role}"' for role in ("staff", "nurse", "clerk", "student")]
)
_conditions = st.sampled_from(
    [
        "true",
        "resource.departments.containsAny(principal.departments)",
        'principal.departments.contains(Department::"west")',
        'principal.references.contains("T")',
        "resource has patient && principal.patients.contains(resource.patient)",
        'principal in Role::"nurse" && principal in Role::"clerk"',
        'resource has department && resource.department != Department::"east"',
        'resource.category == Category::"labs"',
        'resource.category == Category::"vip"',
        'context.purpose in Purpose::"TREAT"',
        'context.purpose in Purpose::"PAY"',
        'context.purpose == Purpose::"ETREAT"',
        'context.purpose == Purpose::"TREAT"',
        '!(context.purpose in Purpose::"TREAT")',
        'context.now < datetime("2026-06-01T12:00:00.001Z")',
        # A number that overflows: the policy fails where it is asked.
        "resource has rank && resource.rank + 1 > 0",
    ]
)
TOP = 2**63 - 1


@st.composite
def policy_texts(draw: Any) -> str:
    effect = draw(st.sampled_from(["permit", "permit", "forbid"]))
    level = draw(st.sampled_from(["view", "view_summary", "view_masked", "update"]))
    named = f'action == Action::"{level}"'
    action = draw(st.sampled_from([named, "action"])) if effect == "forbid" else named
    clauses = " ".join(
        f"{draw(st.sampled_from(['when', 'unless']))} {{ {draw(_conditions)} }}"
        for _ in range(draw(st.integers(0, 2)))
    )
    return f"{effect} ({draw(_scopes)}, {action}, resource) {clauses};"


_assignments = st.builds(
    Assignment,
    st.sampled_from(["nurse", "clerk", "student"]),
    st.sampled_from([*PLACES, None]),
    st.just(BEGIN),
    st.sampled_from([None, AT, datetime(2026, 6, 1, 12, 0, 1, tzinfo=UTC)]),
    st.sampled_from(["T", None]),
    st.sampled_from(["7", None]),
)
_facts = st.builds(
    lambda places, labels: PatientRecord(
        {
            "patient": EntityUid("Patient", "7"),
            "departments": CedarSet.of(EntityUid("Department", p) for p in places),
        },
        labels,
    ),
    st.lists(st.sampled_from(PLACES), max_size=2, unique=True),
    st.sampled_from([(), ("vip",)]),
)
_properties = st.fixed_dictionaries(
    {},
    optional={
        "department": st.sampled_from(PLACES),
        "rank": st.sampled_from([1, TOP]),
    },
)


def made(texts: list[str]) -> PolicyVersion:
    files = {"p.cedar": "\n".join(f'@id("p{n}") {t}' for n, t in enumerate(texts))}
    return open_bundle(
        Bundle(
            {"schema.cedarschema": SCHEMA, "roles.toml": ROLES, "purposes.toml": PURPOSES, **files}
        )
    )


def asking(version: PolicyVersion, person: Person, purpose: str) -> Asking:
    live = person.live(at=AT)
    hierarchy = version.roles.entities()
    context = RecordValue(
        (
            ("purpose", EntityUid("Purpose", purpose)),
            ("now", DateTime(AT_MS)),
            ("source", "clinic"),
        )
    )
    return Asking(
        version.policies,
        hierarchy.with_(person_entity(person, live)),
        EntityUid("User", person.name),
        context,
        tuple(hierarchy.with_(person_entity(person, (a,))) for a in live),
    )


@given(
    texts=st.lists(policy_texts(), min_size=1, max_size=8),
    held=st.lists(_assignments, min_size=1, max_size=3, unique=True),
    facts=_facts,
    said=_properties,
    action=st.sampled_from([*VIEW_ACTIONS.values(), "update"]),
    asked=st.lists(st.sampled_from(["labs", "notes"]), min_size=1, max_size=2, unique=True),
    purpose=st.sampled_from([None, "TREAT", "ETREAT", "PAY"]),
)
def test_a_ruling_is_what_the_plain_meaning_says(
    texts: list[str],
    held: list[Assignment],
    facts: PatientRecord,
    said: dict[str, Any],
    action: str,
    asked: list[str],
    purpose: str | None,
) -> None:
    version = made(texts)
    person = Person("u1", "me", "Me", True, tuple(held))
    rulings = Rulings(version, PersonStandings({"me": person}, version.roles), data_map=MAP)
    context = {} if purpose is None else {"purpose": purpose}
    question = Question(
        Subject("User", "me"),
        Action(action),
        Resource("Record", "r", {"patient": "7", "categories": asked, **said}),
        context,
    )
    ruling = rulings.rule(question, EVERYTHING, facts, AT_MS)

    live = person.live(at=AT)
    stated = purpose or version.roles.default_purpose(live)
    if stated is None:
        assert (ruling.allowed, ruling.reason and ruling.reason.code) == (False, "no_permit")
        return
    try:
        version.roles.check_claim(stated, live)
    except PurposeRefused:
        assert not ruling.allowed
        assert ruling.reason is not None
        assert ruling.reason.code in {"purpose_refused", "no_permit"}
        return
    plain = asking(version, person, stated)
    record: dict[str, Any] = dict(facts.known)
    if "department" in said:
        record["department"] = EntityUid("Department", said["department"])
    if "rank" in said:
        record["rank"] = said["rank"]
    labels = {name: (name, *facts.labels) for name in asked}
    if action == "update":
        expected = may_change(plain, action, record, [n for many in labels.values() for n in many])
        assert ruling.allowed == expected.allowed
        if ruling.allowed:
            assert set(ruling.determining) == set(expected.determining)
    else:
        levels = {n: level_of_labels(plain, record, many) for n, many in labels.items()}
        assert ruling.levels == {n: answer.level.label for n, answer in levels.items()}
        wanted = next(level for level, name in VIEW_ACTIONS.items() if name == action)
        assert ruling.allowed == all(answer.level >= wanted for answer in levels.values())
        if ruling.allowed:
            assert set(ruling.determining) == {i for a in levels.values() for i in a.determining}
    # What is offered is what the same question comes to, asked so.
    for obligation in ruling.obligations:
        if obligation.type == "purpose":
            for other in obligation.values:
                again = Question(
                    question.subject, question.action, question.resource, {"purpose": other}
                )
                assert rulings.rule(again, EVERYTHING, facts, AT_MS).allowed
                assert other != stated
    if not ruling.allowed and ruling.patient and ruling.roles != ():
        offered = {v for o in ruling.obligations if o.type == "purpose" for v in o.values}
        for other in version.roles.purposes:
            listed = any(other in version.roles.roles[a.role].purposes for a in live)
            again = Question(
                question.subject, question.action, question.resource, {"purpose": other}
            )
            if listed and other not in offered and other != stated:
                assert not rulings.rule(again, EVERYTHING, facts, AT_MS).allowed
    # Alone or among others, the answer is the same.
    others = [
        question,
        Question(question.subject, question.action, question.resource, dict(context)),
    ]
    assert rulings.rule_many(others, EVERYTHING, {"7": facts}, AT_MS) == [ruling, ruling]
    # Somebody of whom the source knows nothing is as one whom no permit covers, whatever for.
    is_offered = any(o.type == "purpose" for o in ruling.obligations)
    if ruling.reason is not None and ruling.reason.code == "not_allowed" and not is_offered:
        unknown = rulings.rule(question, EVERYTHING, None, AT_MS)
        assert _told(unknown) == _told(ruling)


def _told(ruling: Any) -> tuple[int, bytes]:
    """What a caller is told of a denial; the log keeps more."""
    return answer(ruling)


_NURSE_IN_WEST = (
    'permit (principal in Role::"nurse", action == Action::"{}", resource) '
    'when {{ principal.departments.contains(Department::"west") }};'
)
_NOT_BOTH = (
    "forbid (principal, action, resource) "
    'when { principal in Role::"nurse" && principal in Role::"clerk" };'
)


@pytest.mark.parametrize("action", [*VIEW_ACTIONS.values(), "update"])
@pytest.mark.parametrize(
    ("texts", "places", "expected"),
    [
        ([_NURSE_IN_WEST], ("east", "west"), False),
        ([_NURSE_IN_WEST], ("west", "east"), True),
        ([_NURSE_IN_WEST, _NOT_BOTH], ("west", "east"), False),
    ],
)
def test_a_permit_is_of_one_assignment_and_a_forbid_of_them_all(
    action: str, texts: list[str], places: tuple[str, str], expected: bool
) -> None:
    version = made([t.format(action) if t is _NURSE_IN_WEST else t for t in texts])
    held = [Assignment(r, p, BEGIN, None) for r, p in zip(("nurse", "clerk"), places, strict=True)]
    people = {"me": Person("u1", "me", "Me", True, tuple(held))}
    facts = PatientRecord(
        {"patient": EntityUid("Patient", "7"), "departments": CedarSet.of(())}, ()
    )
    for data_map in (MAP, None):
        rulings = Rulings(version, PersonStandings(people, version.roles), data_map=data_map)
        said: dict[str, Any] = {"category": "labs"}
        if data_map is not None:
            said["patient"] = "7"
        question = Question(Subject("User", "me"), Action(action), Resource("Record", "r", said))
        assert rulings.rule(question, EVERYTHING, facts, AT_MS).allowed is expected


@given(
    texts=st.lists(policy_texts(), min_size=1, max_size=8),
    held=st.lists(_assignments, min_size=0, max_size=3, unique=True),
    facts=_facts,
    said=_properties,
    action=st.sampled_from([*VIEW_ACTIONS.values(), "update"]),
)
def test_what_is_weighed_is_what_is_decided(
    texts: list[str],
    held: list[Assignment],
    facts: PatientRecord,
    said: dict[str, Any],
    action: str,
) -> None:
    """Whatever holds for one reading of the policies holds for the other, errors too."""
    version = made(texts)
    compiled = compile_policies(version.policies)
    person = Person("u1", "me", "Me", True, tuple(held))
    store = EntityStore(
        [
            *(
                e
                for n in version.roles.roles
                if (e := version.roles.entities().get(EntityUid("Role", n)))
            ),
            *(
                e
                for n in version.roles.purposes
                if (e := version.roles.entities().get(EntityUid("Purpose", n)))
            ),
            person_entity(person, held),
        ]
    )
    record = EntityUid("Record", "asked")
    attrs: dict[str, Any] = {**facts.known, "category": EntityUid("Category", "labs"), **said}
    if "department" in said:
        attrs["department"] = EntityUid("Department", said["department"])
    own = Entity(record, attrs)
    me, doing = EntityUid("User", "me"), EntityUid("Action", action)
    context = {"purpose": EntityUid("Purpose", "TREAT"), "now": DateTime(AT_MS), "source": "clinic"}
    weighed: Weighed = compiled.weigh(me, doing, record, context, store.view, own)
    answer = compiled.decide(me, doing, record, context, store.view, own, forbid_error_denies=True)
    assert answer.allowed == (bool(weighed.permits) and not weighed.forbids)
    assert set(answer.determining) == set(weighed.forbids or weighed.permits)
    failed = {*weighed.failed_permits, *weighed.failed_forbids}
    assert {name for name, _ in answer.errors} == failed
    assert compiled.weigh(me, doing, record, context, store.view, own) is weighed


# --- the shipped policies -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def version(project_root: Path) -> PolicyVersion:
    return load_policy_version(project_root / "policies")


@pytest.fixture(scope="module")
def hospital(project_root: Path, version: PolicyVersion) -> DataMap:
    return load_data_map(project_root / "maps" / "hospital.toml", version.schema)


def _departments(*names: str) -> CedarSet:
    return CedarSet.of(EntityUid("Department", name) for name in names)


def _patient(team: tuple[str, ...], places: tuple[str, ...], *labels: str) -> PatientRecord:
    return PatientRecord(
        {
            "patient": EntityUid("Patient", "7"),
            "care_team": CedarSet.of(EntityUid("User", name) for name in team),
            "departments": _departments(*places),
            "queues": _departments("laboratory"),
            "age_bands": CedarSet.of([EntityUid("AgeBand", "adult")]),
        },
        labels,
    )


RECORDS = {
    "cardiology": _patient(("mwelby",), ("cardiology",)),
    "psychiatry": _patient((), ("psychiatry",)),
    "protected": _patient(("mwelby",), ("cardiology", "oncology"), "protected_person"),
}


@pytest.mark.parametrize("record", RECORDS)
def test_every_role_and_category_is_answered_as_at_the_gate(
    version: PolicyVersion, hospital: DataMap, record: str
) -> None:
    """The gate's filter, read on the one record, reaches the level that is ruled."""
    point = DecisionPoint(version.policies, version.schema, version.roles, hospital)
    facts = RECORDS[record]
    people = {
        p.username: Person(
            p.username,
            p.username,
            "",
            True,
            (
                Assignment(
                    p.role, p.department or None, BEGIN, None, p.reference,
                    "7" if p.about_subject else None,
                ),
            ),
        )
        for p in EVERYBODY
    }  # fmt: skip
    rulings = Rulings(version, PersonStandings(people, version.roles), data_map=hospital)
    shape = RowShape(
        scalars=frozenset({"patient"}),
        sets=set_attributes(version.schema),
        declared_sets=set_attributes(version.schema),
        kinds=attribute_kinds(version.schema),
    )
    categories = sorted(rulings.shape.categories)
    compared = 0
    for person in EVERYBODY:
        asker = point.asker(people[person.username], person.purpose, at=AT)
        judge = point.judge(asker, at=AT)
        by_label = {
            label: max(
                (
                    level
                    for level, rule in judge.view(label, shape).at_least.items()
                    if _holds(rule.formula, facts.known)
                ),
                default=Disclosure.WITHHELD,
            )
            for label in (*categories, *facts.labels)
        }
        for category in categories:
            ruling = rulings.rule(
                Question(
                    Subject("User", person.username),
                    Action("view"),
                    Resource("Record", "r", {"patient": "7", "category": category}),
                    {"purpose": person.purpose},
                ),
                EVERYTHING,
                facts,
                AT_MS,
            )
            expected = min(by_label[label] for label in (category, *facts.labels))
            assert ruling.levels == {category: expected.label}, (person.username, category)
            assert ruling.allowed == (expected == Disclosure.FULL)
            compared += 1
    assert compared == len(EVERYBODY) * len(categories)


def _holds(formula: Any, known: Any) -> bool:
    match formula:
        case All(parts):
            return all(_holds(part, known) for part in parts)
        case AnyOf(parts):
            return any(_holds(part, known) for part in parts)
        case Present(attribute, negated):
            return (attribute not in known) == negated
        case HasMember(attribute, values, negated):
            return any(v in known[attribute] for v in values) != negated
    assert isinstance(formula, IsOneOf)
    found = known.get(formula.attribute)
    return found is not None and (found in formula.values) != formula.negated
