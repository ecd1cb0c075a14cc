"""A diff's verdicts against random requests: what the reference evaluator decides otherwise is in a
changed cell, and no request of an unchanged cell is decided otherwise."""

from datetime import UTC, datetime
from functools import cache
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from chartgate.app.levels import Asking, level_of, may_change
from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle
from chartgate.app.policy_diff import Cell, Verdict, policy_diff
from chartgate.app.proof_diff import Comparison
from chartgate.app.rolebook import person_entity
from chartgate.cedar.values import CedarSet, DateTime, RecordValue
from chartgate.model.disclosure import VIEW_ACTIONS
from chartgate.model.principal import Assignment, EntityUid, Person

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
ROLE_NAMES = ("nurse", "clerk")
CATEGORIES = ("notes", "billing")
PLACES = ("north", "south")
SCHEMA = """
entity Category enum ["notes", "billing"];
entity Purpose in [Purpose];
entity Role in [Role];
entity Department;
entity Patient;
entity User in [Role] = {
  departments: Set<Department>, references: Set<String>, patients: Set<Patient>
};
entity Record = {
  category: Category, department?: Department, departments: Set<Department>,
  care_team: Set<User>, author?: User
};
type Asked = { purpose: Purpose, now: datetime, source: String };
action view, view_summary, view_masked, update appliesTo {
  principal: [User], resource: [Record], context: Asked
};
"""
ROLES = "".join(
    f'[roles.{name}]\ntitle = "{name}"\nparents = []\ndefault_purpose = "TREAT"\n'
    'purposes = ["TREAT", "HPAYMT"]\n'
    for name in ROLE_NAMES
)
CONDITIONS = (
    'resource.category == Category::"notes"',
    'context.purpose in Purpose::"TREAT"',
    "resource.departments.containsAny(principal.departments)",
    "resource.care_team.contains(principal)",
    "resource has author && resource.author == principal",
    "resource has department && principal.departments.contains(resource.department)",
)


@st.composite
def policies(draw: st.DrawFn) -> tuple[str, ...]:
    found = []
    for _ in range(draw(st.integers(1, 3))):
        effect = draw(st.sampled_from(["permit", "permit", "forbid"]))
        role = draw(st.sampled_from(ROLE_NAMES))
        whom = (
            f'principal in Role::"{role}"'
            if effect == "permit" or draw(st.booleans())
            else "principal"
        )
        actions = draw(
            st.lists(
                st.sampled_from([*VIEW_ACTIONS.values(), "update"]),
                min_size=1,
                max_size=2,
                unique=True,
            )
        )
        named = ", ".join(f'Action::"{a}"' for a in actions)
        conditions = draw(st.lists(st.sampled_from(CONDITIONS), max_size=2, unique=True))
        when = "".join(
            f" {draw(st.sampled_from(['when', 'unless']))} {{ {c} }}" for c in conditions
        )
        found.append(f"{effect} ({whom}, action in [{named}], resource){when};")
    return tuple(found)


@cache
def opened(texts: tuple[str, ...]) -> PolicyVersion:
    cedar = "\n".join(f'@id("p{n}")\n{text}' for n, text in enumerate(texts))
    purposes = "TREAT = []\nHPAYMT = []\nETREAT = ['TREAT']\n"
    return open_bundle(
        Bundle(
            {
                "schema.cedarschema": SCHEMA,
                "roles.toml": ROLES,
                "purposes.toml": purposes,
                "all.cedar": cedar,
            }
        )
    )


def uids(kind: str, names: list[str]) -> CedarSet:
    return CedarSet.of([EntityUid(kind, name) for name in names])


@st.composite
def requests(draw: st.DrawFn) -> tuple[Person, str, RecordValue]:
    role = draw(st.sampled_from(ROLE_NAMES))
    places = draw(st.lists(st.sampled_from([None, *PLACES]), min_size=1, max_size=2, unique=True))
    person = Person(
        "ann", "ann", "Ann", True, tuple(Assignment(role, place, NOW, None) for place in places)
    )
    record = [
        ("departments", uids("Department", draw(st.lists(st.sampled_from(PLACES), unique=True)))),
        ("care_team", uids("User", draw(st.lists(st.sampled_from(["ann", "bob"]), unique=True)))),
    ]
    author = draw(st.sampled_from([None, "ann", "bob"]))
    place = draw(st.sampled_from([None, *PLACES]))
    record += [("author", EntityUid("User", author))] if author else []
    record += [("department", EntityUid("Department", place))] if place else []
    return person, draw(st.sampled_from(["TREAT", "ETREAT", "HPAYMT"])), RecordValue(record)


def asking(version: PolicyVersion, person: Person, purpose: str) -> Asking:
    hierarchy = version.roles.entities()
    return Asking(
        policies=version.policies,
        entities=hierarchy.with_(person_entity(person, person.assignments)),
        principal=EntityUid("User", person.name),
        context=RecordValue(
            (
                ("purpose", EntityUid("Purpose", purpose)),
                ("now", DateTime(0)),
                ("source", "scenario"),
            )
        ),
        parts=tuple(hierarchy.with_(person_entity(person, (a,))) for a in person.assignments),
    )


def allowed(version: PolicyVersion, action: str, category: str, request: object) -> bool:
    person, purpose, record = request  # type: ignore[misc]
    asked = asking(version, person, purpose)
    for level, name in VIEW_ACTIONS.items():
        if name == action:
            return level_of(asked, record, category).level >= level
    return may_change(asked, action, record, (category,)).allowed


@given(policies(), policies(), st.lists(requests(), min_size=4, max_size=12))
def test_verdicts_agree_with_requests_decided_by_both(
    first: tuple[str, ...], second: tuple[str, ...], asked: list[object]
) -> None:
    before, after = opened(first), opened(second)
    diff = policy_diff(before, after, lambda: Comparison(before, after, now=NOW, timeout=20))
    cells: dict[tuple[str, str, str | None], Cell] = {
        (c.role, c.action, c.category): c for c in diff.cells
    }
    assert not any(c.verdict is Verdict.UNKNOWN for c in diff.cells)
    for request, action, category in product(asked, (*VIEW_ACTIONS.values(), "update"), CATEGORIES):
        role = request[0].assignments[0].role  # type: ignore[index]
        was, now = (allowed(v, action, category, request) for v in (before, after))
        cell = cells.get((role, action, category))
        if cell is None:
            assert was == now
            continue
        assert was or not now or cell.more is not None, (cell, request)
        assert now or not was or cell.less is not None, (cell, request)
