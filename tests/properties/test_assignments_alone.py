"""The filter and the plain meaning agree about several assignments: permits of one, forbids of all.

For random assignments and policies, the formula of every label holds of a row exactly when the
reference evaluator reaches the level there, and likewise for changes.
"""

from typing import Any as Anything

from hypothesis import given
from hypothesis import strategies as st

from chartgate.app.entitlement import Judge
from chartgate.app.levels import Asking, level_of, may_change
from chartgate.app.rolebook import person_entity
from chartgate.cedar.ast import PolicySet
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.evaluate import Env
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.validate import parse_schema
from chartgate.cedar.values import CedarSet, RecordValue
from chartgate.model.disclosure import Disclosure
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.targets.admissible import attribute_kinds, check_filters, set_attributes
from chartgate.targets.disclosure import PolicyIndex
from chartgate.targets.formula import All, Any, Formula, HasMember, IsOneOf, Present
from chartgate.targets.partial import RowShape

SCHEMA = parse_schema(
    """
    entity Category enum ["labs", "notes"];
    entity Purpose in [Purpose];
    entity Role in [Role];
    entity Department;
    entity User in [Role] = { departments: Set<Department>, references: Set<String> };
    entity Record = { category: Category, department?: Department, departments: Set<Department> };
    type Asked = { purpose: Purpose };
    action view, view_summary, view_masked, update appliesTo {
      principal: [User], resource: [Record], context: Asked };
    """,
    "test.cedarschema",
)
SHAPE = RowShape(
    scalars=frozenset({"department"}),
    sets=frozenset({"departments"}),
    declared_sets=set_attributes(SCHEMA),
    kinds=attribute_kinds(SCHEMA),
)
EAST, WEST = (EntityUid("Department", name) for name in ("east", "west"))
ROWS: list[dict[str, Anything]] = [
    {"departments": CedarSet.of(many)} | ({} if one is None else {"department": one})
    for one in (None, EAST, WEST)
    for many in ((), (EAST,), (WEST,), (EAST, WEST))
]
ROLES = Entities(
    (
        Entity(EntityUid("Role", "staff")),
        Entity(EntityUid("Role", "nurse"), parents=frozenset({EntityUid("Role", "staff")})),
        Entity(EntityUid("Role", "clerk"), parents=frozenset({EntityUid("Role", "staff")})),
        Entity(EntityUid("Role", "student")),
    )
)
ME = EntityUid("User", "me")

_scopes = st.sampled_from(
    ["principal", 'principal == User::"me"', 'principal == User::"you"']
    + [f'principal in Role::"{role}"' for role in ("staff", "nurse", "clerk", "student")]
)
_conditions = st.sampled_from(
    [
        "true",
        "resource.departments.containsAny(principal.departments)",
        "principal.departments.contains(resource.department)",
        'resource.departments.contains(Department::"east")',
        'resource.department == Department::"west"',
        'principal.departments.contains(Department::"west")',
        'principal.references.contains("T")',
        'principal in Role::"nurse" && principal in Role::"clerk"',
        'principal in Role::"student"',
        'resource has department && resource.department != Department::"east"',
        'resource.category == Category::"labs"',
    ]
)


@st.composite
def policy_texts(draw: Anything) -> str:
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
    lambda role, department, reference: Assignment(role, department, None, None, reference),  # type: ignore[arg-type]
    st.sampled_from(["nurse", "clerk", "student"]),
    st.sampled_from(["east", "west", ""]),
    st.sampled_from(["T", ""]),
)


def holds(formula: Formula, row: dict[str, Anything]) -> bool:
    match formula:
        case All(parts):
            return all(holds(part, row) for part in parts)
        case Any(parts):
            return any(holds(part, row) for part in parts)
        case Present(attribute, negated):
            return (attribute not in row) == negated
        case IsOneOf(attribute, values, negated):
            return attribute in row and (row[attribute] in values) != negated
        case HasMember(attribute, values, negated):
            return any(v in row[attribute] for v in values) != negated
    raise AssertionError(formula)


@given(
    texts=st.lists(policy_texts(), min_size=1, max_size=6),
    held=st.lists(_assignments, min_size=1, max_size=3, unique=True),
)
def test_the_filter_and_the_plain_meaning_agree_about_several_assignments(
    texts: list[str], held: list[Assignment]
) -> None:
    parsed: PolicySet = parse_policies({"random.cedar": "\n".join(texts)}, ids="order")
    check_filters(parsed, SCHEMA)
    person = Person("u1", "me", "Me", True, tuple(held))
    context = RecordValue((("purpose", EntityUid("Purpose", "TREAT")),))

    def among(assignments: tuple[Assignment, ...]) -> Entities:
        return ROLES.with_(person_entity(person, assignments))

    def env(assignments: tuple[Assignment, ...]) -> Env:
        record = EntityUid("Record", "this row")
        return Env(ME, EntityUid("Action", "view"), record, context, among(assignments))

    judge = Judge(PolicyIndex(parsed.policies), env(tuple(held)), tuple(env((a,)) for a in held))
    asking = Asking(parsed, among(tuple(held)), ME, context, parts=tuple(among((a,)) for a in held))
    for label in ("labs", "notes"):
        rules = judge.view(label, SHAPE)
        change = judge.change("update", label, SHAPE)
        for row in ROWS:
            reached = level_of(asking, row, label).level
            for level in (Disclosure.MASKED, Disclosure.SUMMARY, Disclosure.FULL):
                formula = rules.at_least[level].formula
                assert holds(formula, row) == (reached >= level), (label, level, row)
            allowed = may_change(asking, "update", row, [label]).allowed
            assert holds(change.formula, row) == allowed
