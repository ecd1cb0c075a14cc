"""Whoever asks again and again is answered as the first time: what is left of the policies for one
person says what all of them say, for random people, records and policies, errors included.
"""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chartgate.app.patient_record import PatientRecord
from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.rulings import Rulings
from chartgate.app.standing import PersonStandings
from chartgate.cedar.entities import Entity
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.values import CedarSet
from chartgate.datamap.model import DataMap, PatientTable
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.model.service import EVERYTHING

BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
AT_MS = 1_780_315_200_000
TOP = 2**63 - 1

SCHEMA = """
entity Category enum ["labs", "notes", "vip"];
entity Purpose in [Purpose];
entity Role in [Role];
entity Department in [Department];
entity Patient;
entity User in [Role] = {
  departments: Set<Department>, references: Set<String>, patients: Set<Patient>, boss?: User };
entity Record = {
  category: Category, patient?: Patient, department?: Department, departments: Set<Department>,
  author?: User, rank?: Long, sealed?: Bool,
};
action change;
action view, view_summary, view_masked, update in [change] appliesTo {
  principal: [User], resource: [Record, User],
  context: { purpose: Purpose, acr?: Long } };
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
"""
PURPOSES = 'TREAT = []\nETREAT = ["TREAT"]\nPAY = []\n'
MAP = DataMap("clinic", "", "public", PatientTable("p", "id", "id"), {}, {}, (), "map")

_OF_RECORDS = [
    "resource.departments.containsAny(principal.departments)",
    "resource has department && principal.departments.contains(resource.department)",
    'resource has department && resource.department in Department::"east"',
    'resource has department && resource.department == Department::"ward"',
    "resource has patient && principal.patients.contains(resource.patient)",
    "resource has author && resource.author == principal",
    'resource has author && resource.author in Role::"nurse"',
    'resource has author && resource.author.departments.contains(Department::"west")',
    "resource has author && resource.author has boss && resource.author.boss == principal",
    'resource.category == Category::"labs"',
    '[Category::"labs", Category::"vip"].contains(resource.category)',
    'resource.category == Category::"notes" || resource.departments.isEmpty()',
    # A number that overflows: the policy fails where it is asked.
    "resource has rank && resource.rank + 1 > 0",
    'resource has rank && resource.rank + 1 > 0 && principal in Role::"nurse"',
    'resource has rank && (principal in Role::"clerk" || resource.rank + 1 > 0)',
    "resource has sealed && resource.sealed && context has acr && context.acr > 1",
    'if principal in Role::"clerk" then resource has rank else resource has author',
]
_OF_ALL = [
    "true",
    'principal.departments.contains(Department::"west")',
    'principal.references.contains("T")',
    'principal in Role::"nurse" && principal in Role::"clerk"',
    '!(principal in Role::"nurse")',
    'context.purpose in Purpose::"TREAT"',
    'context.purpose == Purpose::"TREAT"',
    "context has acr && context.acr + 1 > 2",
    'principal has boss && principal.boss in Role::"staff"',
    'User::"you" in Role::"nurse"',
    'User::"me" in Role::"nurse"',
]


@st.composite
def policy_texts(draw: Any) -> str:
    effect = draw(st.sampled_from(["permit", "permit", "forbid"]))
    action = draw(
        st.sampled_from(
            [
                *(f'action == Action::"{n}"' for n in ("view", "view_masked", "update")),
                'action in [Action::"view", Action::"view_summary"]',
                'action in Action::"change"',
                "action",
            ]
        )
    )
    who = draw(
        st.sampled_from(
            ["principal", 'principal == User::"me"']
            + [f'principal in Role::"{role}"' for role in ("staff", "nurse", "clerk")]
        )
    )
    said = _OF_ALL if effect == "permit" and draw(st.booleans()) else _OF_RECORDS + _OF_ALL
    clauses = []
    what = "resource is Record"
    for _ in range(draw(st.integers(0, 3))):
        clauses.append(
            f"{draw(st.sampled_from(['when', 'when', 'unless']))} {{ {draw(st.sampled_from(said))} }}"
        )
    if said is _OF_ALL:
        what = draw(st.sampled_from(["resource", "resource is Record", "resource is User"]))
    return f"{effect} ({who}, {action}, {what}) {' '.join(clauses)};"


_assignments = st.builds(
    Assignment,
    st.sampled_from(["nurse", "clerk"]),
    st.sampled_from(["east", "west", None]),
    st.just(BEGIN),
    st.none(),
    st.sampled_from(["T", None]),
    st.sampled_from(["7", None]),
)
_records = st.fixed_dictionaries(
    {},
    optional={
        "department": st.sampled_from(["east", "west", "ward"]),
        "author": st.sampled_from(["me", "you", "nobody"]),
        "rank": st.sampled_from([1, TOP]),
        "sealed": st.booleans(),
    },
)
_facts = st.builds(
    lambda places, labels: PatientRecord(
        {
            "patient": EntityUid("Patient", "7"),
            "departments": CedarSet.of(EntityUid("Department", p) for p in places),
        },
        labels,
    ),
    st.lists(st.sampled_from(["east", "west"]), max_size=2, unique=True),
    st.sampled_from([(), ("vip",)]),
)
_contexts = st.sampled_from(
    [{}, {"purpose": "TREAT"}, {"purpose": "PAY"}, {"purpose": "TREAT", "acr": 2}, {"acr": TOP}]
)
STORED = (
    Entity(EntityUid("Department", "ward"), {}, frozenset({EntityUid("Department", "east")})),
    Entity(
        EntityUid("User", "you"),
        {
            "departments": CedarSet.of([EntityUid("Department", "west")]),
            "references": CedarSet.of(()),
            "patients": CedarSet.of(()),
            "boss": EntityUid("User", "me"),
        },
        frozenset({EntityUid("Role", "nurse")}),
    ),
)


def made(texts: list[str]) -> PolicyVersion:
    files = {"p.cedar": "\n".join(f'@id("p{n}") {t}' for n, t in enumerate(texts))}
    return open_bundle(
        Bundle(
            {"schema.cedarschema": SCHEMA, "roles.toml": ROLES, "purposes.toml": PURPOSES, **files}
        )
    )


def rulings_of(
    version: PolicyVersion, held: list[Assignment], *, often: int, mapped: bool
) -> Rulings:
    people = {"me": Person("u1", "me", "Me", True, tuple(held))}
    rulings = Rulings(
        version,
        PersonStandings(people, version.roles),
        data_map=MAP if mapped else None,
        entities=STORED,
    )
    rulings._core.often = often  # the one knob: how soon the other way is gone
    return rulings


@given(
    texts=st.lists(policy_texts(), min_size=1, max_size=10),
    held=st.lists(_assignments, min_size=0, max_size=3, unique=True),
    asked=st.lists(
        st.tuples(
            st.sampled_from(["view", "view_summary", "view_masked", "update"]),
            st.sampled_from([["labs"], ["notes"], ["labs", "notes"], ["vip"]]),
            _records,
            st.one_of(_facts, st.none()),
            _contexts,
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_what_is_left_for_somebody_says_what_all_policies_say(
    texts: list[str],
    held: list[Assignment],
    asked: list[tuple[str, list[str], dict[str, Any], PatientRecord | None, dict[str, Any]]],
) -> None:
    version = made(texts)
    general = rulings_of(version, held, often=1 << 30, mapped=True)
    special = rulings_of(version, held, often=0, mapped=True)
    for action, categories, said, facts, context in asked:
        question = Question(
            Subject("User", "me"),
            Action(action),
            Resource("Record", "r", {"patient": "7", "categories": categories, **said}),
            context,
        )
        expected = general.rule(question, EVERYTHING, facts, AT_MS)
        assert special.rule(question, EVERYTHING, facts, AT_MS) == expected
        assert special.rule(question, EVERYTHING, facts, AT_MS) == expected


@given(
    texts=st.lists(policy_texts(), min_size=1, max_size=10),
    held=st.lists(_assignments, min_size=0, max_size=3, unique=True),
    asked=st.lists(
        st.tuples(
            st.sampled_from(["view", "view_masked", "update"]),
            st.sampled_from([("Record", "r"), ("User", "me"), ("User", "you"), ("User", "nobody")]),
            _records,
            _contexts,
        ),
        min_size=1,
        max_size=6,
    ),
    later=st.booleans(),
)
def test_the_same_of_plain_resources_and_of_grants(
    texts: list[str],
    held: list[Assignment],
    asked: list[tuple[str, tuple[str, str], dict[str, Any], dict[str, Any]]],
    later: bool,
) -> None:
    version = made(texts)
    general = rulings_of(version, held, often=1 << 30, mapped=False)
    special = rulings_of(version, held, often=0, mapped=False)
    grant = parse_policies(
        {"g": '@id("g") permit (principal == User::"me", action, resource is Record);'}
    ).policies
    for turn in range(3):
        if turn == 1:
            for one in (general, special):
                one.grant(*grant)
        if turn == 2:
            for one in (general, special):
                one.revoke("g")
                if later:  # what was fixed before may be otherwise now
                    one.update(
                        Entity(
                            EntityUid("Purpose", "PAY"),
                            {},
                            frozenset({EntityUid("Purpose", "TREAT")}),
                        ),
                        removed=[EntityUid("User", "you")],
                    )
        for action, (kind, name), said, context in asked:
            properties = {"category": "labs", "departments": ["east"], **said}
            question = Question(
                Subject("User", "me"),
                Action(action),
                Resource(kind, name, properties if kind == "Record" else {}),
                context,
            )
            expected = general.rule(question, EVERYTHING, None, AT_MS)
            assert special.rule(question, EVERYTHING, None, AT_MS) == expected
