"""Partial evaluation says of every row what the reference evaluator says of it, errors too.

An expression is either refused at load, or its outcome is true, false and neither on exactly the
rows where evaluation gives true, false and an error.
"""

from itertools import product
from typing import Any as Anything

from hypothesis import event, given
from hypothesis import strategies as st

from chartgate.cedar.ast import (
    WILDCARD,
    And,
    Binary,
    Condition,
    Expr,
    GetAttr,
    HasAttr,
    If,
    Is,
    Like,
    Literal,
    Not,
    Or,
    Policy,
    PolicySet,
    SetExpr,
    Unary,
    Var,
)
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.evaluate import Env, EvaluationError, evaluate
from chartgate.cedar.validate import parse_schema
from chartgate.cedar.values import CedarSet, RecordValue
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import (
    NotAFilter,
    attribute_kinds,
    check_filters,
    set_attributes,
)
from chartgate.targets.formula import (
    All,
    Any,
    Compares,
    Formula,
    HasMember,
    IsOneOf,
    Present,
)
from chartgate.targets.partial import Known, RowShape, specialise

SCHEMA = parse_schema(
    """
    entity Category enum ["labs", "notes"];
    entity Group in [Group];
    entity User in [Group] = { groups: Set<Group>, friends: Set<User>, rank: Long };
    entity Record = {
      category: Category, owner?: Ward, name?: String, size?: Long, ok?: Bool, group?: Group,
      team: Set<Ward>, words: Set<String>, numbers: Set<Long>,
    };
    entity Ward;
    type Asked = { purpose?: String, now: datetime };
    action view appliesTo { principal: [User], resource: [Record], context: Asked };
    """,
    "test.cedarschema",
)
WARDS = [EntityUid("Ward", name) for name in "ab"]
ME = EntityUid("User", "me")
RECORD = EntityUid("Record", "r")
PEOPLE = Entities(
    (
        Entity(
            ME,
            RecordValue(
                {
                    "groups": CedarSet.of([EntityUid("Group", "g")]),
                    "friends": CedarSet.of([EntityUid("User", "you")]),
                    "rank": 2,
                }
            ),
            frozenset({EntityUid("Group", "g")}),
        ),
    )
)
SHAPE = RowShape(
    scalars=frozenset({"owner", "name", "size", "ok"}),
    sets=frozenset({"team", "words"}),
    declared_sets=set_attributes(SCHEMA),
    kinds=attribute_kinds(SCHEMA),
)
ROWS: list[dict[str, Anything]] = [
    {name: value for name, value in zip(("owner", "name", "size", "ok"), scalars, strict=True)
     if value is not None}
    | {"team": CedarSet.of(team), "words": CedarSet.of(words), "numbers": CedarSet.of([])}
    for scalars in product([None, *WARDS], [None, "", "a"], [None, 1, 2], [None, True, False])
    for team, words in (((), ("",)), (WARDS[:1], ()), (WARDS, ("a", "")))
]  # fmt: skip

_resource = Var("resource")
_attributes = st.sampled_from(
    ["owner", "name", "size", "ok", "group", "team", "words", "numbers", "category", "absent"]
)
_values = st.sampled_from(
    [*WARDS, ME, EntityUid("Category", "labs"), EntityUid("Group", "g"), "", "a", 1, 2, True, False,
     CedarSet.of(WARDS), CedarSet.of([]), CedarSet.of(["a", ""]), CedarSet.of([1, True]),
     CedarSet.of([1, 2])]
)  # fmt: skip
_known: st.SearchStrategy[Expr] = st.one_of(
    st.builds(Literal, _values),
    st.sampled_from([Var("principal"), Var("action"), Var("context")]),
    st.builds(GetAttr, st.just(Var("principal")), st.sampled_from(["groups", "rank", "absent"])),
    st.builds(GetAttr, st.just(Var("context")), st.sampled_from(["purpose", "absent"])),
    st.builds(HasAttr, st.just(Var("context")), st.sampled_from(["purpose", "absent"])),
    st.builds(Binary, st.just("in"), st.just(Var("principal")), st.builds(Literal, _values)),
)
_ops = st.sampled_from(
    ["==", "!=", "<", "<=", ">", ">=", "in", "contains", "containsAny", "containsAll", "+"]
)
_of_row: st.SearchStrategy[Expr] = st.builds(GetAttr, st.just(_resource), _attributes)
_leaves: st.SearchStrategy[Expr] = st.one_of(
    st.builds(Binary, _ops, _of_row, _known),
    st.builds(Binary, _ops, _known, _of_row),
    st.builds(HasAttr, st.just(_resource), _attributes),
    _known,
    st.builds(Binary, _ops, _of_row, _of_row),
    st.builds(Is, st.just(_resource), st.sampled_from(["Record", "User"])),
    st.sampled_from([_resource, Unary("isEmpty", GetAttr(_resource, "team")),
                     Like(GetAttr(_resource, "name"), (WILDCARD,)),
                     SetExpr((GetAttr(_resource, "name"),))]),
)  # fmt: skip


def _grown(parts: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    return st.one_of(
        st.builds(And, parts, parts),
        st.builds(Or, parts, parts),
        st.builds(Not, parts),
        st.builds(If, parts, parts, parts),
    )


expressions = st.recursive(_leaves, _grown, max_leaves=8)


def env(row: dict[str, Anything]) -> Env:
    record = Entity(RECORD, RecordValue({"category": EntityUid("Category", "labs"), **row}))
    context = RecordValue({"purpose": "a"})
    return Env(ME, EntityUid("Action", "view"), RECORD, context, PEOPLE.with_(record))


def holds(formula: Formula, row: dict[str, Anything]) -> bool:
    match formula:
        case All(parts):
            return all(holds(part, row) for part in parts)
        case Any(parts):
            return any(holds(part, row) for part in parts)
        case Present(attribute, negated):
            return (attribute not in row) == negated
        case IsOneOf(attribute, values, negated):
            # A column holds values of one type: to it 1 and true are not the same.
            same = {(type(v), v) for v in values}
            return attribute in row and ((type(row[attribute]), row[attribute]) in same) != negated
        case Compares(attribute, op, number):
            value = row.get(attribute)
            return value is not None and {
                "<": value < number, "<=": value <= number,
                ">": value > number, ">=": value >= number,
            }[op]  # fmt: skip
        case HasMember(attribute, values, negated):
            return any(v in row[attribute] for v in values) != negated
    raise AssertionError(formula)


def meaning(expr: Expr, row: dict[str, Anything]) -> bool | None:
    try:
        value = evaluate(expr, env(row))
    except EvaluationError:
        return None
    return value if isinstance(value, bool) else None


@given(expressions)
def test_refused_at_load_or_true_false_and_failing_where_evaluation_is(expr: Expr) -> None:
    policy = Policy("p", "forbid", conditions=(Condition("when", expr),))
    try:
        check_filters(PolicySet((policy,), ""), SCHEMA)
    except NotAFilter:
        event("refused")
        return
    outcome = specialise(expr, Known(env({}), SHAPE))
    event("by row" if outcome.true != outcome.false else "the same everywhere")
    for row in ROWS:
        wanted = meaning(expr, row)
        assert holds(outcome.true, row) == (wanted is True)
        assert holds(outcome.false, row) == (wanted is False)
