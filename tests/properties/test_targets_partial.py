"""Partial evaluation says of every row what the reference evaluator says of it, errors too.

An expression is either refused at load, or its outcome is true, false and neither on exactly the
rows where evaluation gives true, false and an error. Nothing that was admitted fails later, and no
formula outgrows what was counted at load.
"""

import random
from typing import Any as Anything

from hypothesis import event, given
from hypothesis import strategies as st

from chartgate.cedar.ast import (
    WILDCARD,
    And,
    Binary,
    Call,
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
from chartgate.cedar.values import CedarSet, DateTime, Decimal, Duration, RecordValue
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import (
    MAX_ATOMS,
    NotAFilter,
    attribute_kinds,
    check_filters,
    set_attributes,
)
from chartgate.targets.formula import atoms
from chartgate.targets.partial import Known, RowShape, specialise
from chartgate.targets.predicate import compile_predicate

SCHEMA = parse_schema(
    """
    entity Category enum ["labs", "notes"];
    entity Group in [Group];
    entity Crowd in [Crowd];
    entity User in [Group] = { groups: Set<Group>, friends: Set<User>, rank: Long };
    entity Record = {
      category: Category, owner?: Ward, deputy?: Ward, name?: String, code?: String, size?: Long,
      count?: Long, ok?: Bool, group?: Group, crowd?: Crowd, since?: datetime, until?: datetime,
      price?: decimal, limit?: decimal, place?: { room: String },
      team: Set<Ward>, words: Set<String>, numbers: Set<Long>,
    };
    entity Ward;
    type Asked = { purpose?: String, now: datetime };
    action view appliesTo { principal: [User], resource: [Record], context: Asked };
    """,
    "test.cedarschema",
)
FAMILIES = {"Group": frozenset(EntityUid("Group", name) for name in "gh")}
WARDS = [EntityUid("Ward", name) for name in "ab"]
GROUPS = [*sorted(FAMILIES["Group"], key=str), EntityUid("Group", "other")]
ME = EntityUid("User", "me")
RECORD = EntityUid("Record", "r")
PEOPLE = Entities(
    (
        Entity(
            ME,
            RecordValue(
                {
                    "groups": CedarSet.of([GROUPS[0]]),
                    "friends": CedarSet.of([EntityUid("User", "you")]),
                    "rank": 2,
                }
            ),
            frozenset({GROUPS[0]}),
        ),
        Entity(GROUPS[0], parents=frozenset({GROUPS[1]})),
        Entity(GROUPS[1]),
    )
)
HUGE = 2**63 - 1
SCALARS: dict[str, list[Anything]] = {
    "owner": WARDS, "deputy": WARDS, "name": ["", "a", "A*b"], "code": ["a", "a%"],
    "size": [1, 2, HUGE, -HUGE - 1], "count": [0, 2, -1], "ok": [True, False], "group": GROUPS,
    "crowd": [EntityUid("Crowd", "c")],
    "since": [DateTime(0), DateTime(-1), DateTime(86_400_000)], "until": [DateTime(0), DateTime(5)],
    "price": [Decimal(0), Decimal(15_000)], "limit": [Decimal(15_000), Decimal(-1)],
}  # fmt: skip
SETS: dict[str, list[Anything]] = {"team": WARDS, "words": ["", "a", "b"], "numbers": [1, 2]}
# 'crowd' and 'numbers' are in the schema and in no column.
SHAPE = RowShape(
    scalars=frozenset(SCALARS.keys() - {"crowd"}),
    sets=frozenset({"team", "words"}),
    declared_sets=set_attributes(SCHEMA),
    kinds=attribute_kinds(SCHEMA),
    families=FAMILIES,
)


def _rows() -> list[dict[str, Anything]]:
    rng, rows = random.Random(11), []
    for _ in range(60):
        row: dict[str, Anything] = {
            name: rng.choice(values)
            for name, values in SCALARS.items()
            if name in SHAPE.scalars and rng.random() < 0.75
        }
        for name, values in SETS.items():
            some = rng.sample(values, rng.randrange(len(values) + 1)) if name in SHAPE.sets else []
            row[name] = CedarSet.of(some)
        rows.append(row)
    return rows


ROWS = _rows()

_resource = Var("resource")
_attributes = st.sampled_from([*SCALARS, *SETS, "category", "absent", "place"])
_values = st.sampled_from(
    [*WARDS, ME, *GROUPS, EntityUid("Category", "labs"), "", "a", 1, 2, HUGE, True, False,
     DateTime(0), DateTime(86_400_000), Duration(1), Duration(HUGE), Decimal(15_000),
     CedarSet.of(WARDS), CedarSet.of(WARDS[:1]), CedarSet.of([]), CedarSet.of(["a", ""]),
     CedarSet.of([1, True]), CedarSet.of([1, 2]), CedarSet.of([*WARDS, "a"]),
     CedarSet.of([DateTime(0), Decimal(0), "a"])]
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
    ["==", "!=", "<", "<=", ">", ">=", "in", "contains", "containsAny", "containsAll", "+", "-",
     "*", "hasTag", "getTag"]
)  # fmt: skip
_decimal_methods = ["lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"]
_methods = st.sampled_from([*_decimal_methods, "offset", "durationSince"])
_single = st.sampled_from(["toDate", "toTime", "toDays", "toSeconds", "toMilliseconds", "isIpv4"])
_patterns = st.sampled_from([(), ("a",), (WILDCARD,), ("A*", WILDCARD), (WILDCARD, "%")])
_of_row: st.SearchStrategy[Expr] = st.builds(GetAttr, st.just(_resource), _attributes)
_leaves: st.SearchStrategy[Expr] = st.one_of(
    st.builds(Binary, _ops, _of_row, _known),
    st.builds(Binary, _ops, _known, _of_row),
    st.builds(Binary, _ops, _of_row, _of_row),
    st.builds(HasAttr, st.just(_resource), _attributes),
    _known,
    _of_row,
    st.builds(Is, st.just(_resource), st.sampled_from(["Record", "User"])),
    st.builds(Like, _of_row, _patterns),
    st.builds(Unary, st.sampled_from(["isEmpty", "neg"]), _of_row),
    st.sampled_from([_resource, SetExpr((GetAttr(_resource, "name"),))]),
)


def _grown(parts: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    return st.one_of(
        st.builds(And, parts, parts),
        st.builds(Or, parts, parts),
        st.builds(Not, parts),
        st.builds(If, parts, parts, parts),
        st.builds(Binary, _ops, parts, parts),
        st.builds(lambda fn, a, b: Call(fn, (a, b)), _methods, parts, parts),
        st.builds(lambda fn, a: Call(fn, (a,)), _single, parts),
        st.builds(Is, parts, st.sampled_from(["Ward", "Group"])),
        st.builds(Unary, st.sampled_from(["isEmpty", "neg"]), parts),
    )


expressions = st.recursive(_leaves, _grown, max_leaves=8)

# Well-typed more often than not: operands of one kind, computed, chosen, known or the row's.
_KINDS = {
    "Long": (["size", "count"], [1, 2, HUGE, -1]),
    "datetime": (["since", "until"], [DateTime(0), DateTime(5), DateTime(HUGE)]),
    "duration": ([], [Duration(1), Duration(-HUGE), Duration(86_400_000)]),
    "decimal": (["price", "limit"], [Decimal(15_000), Decimal(-1)]),
    "String": (["name", "code"], ["", "a", "A*b"]),
    "Ward": (["owner", "deputy"], WARDS),
    "Group": (["group"], GROUPS),
    "Bool": (["ok"], [True, False]),
}


def _get(name: str) -> Expr:
    return GetAttr(_resource, name)


def _operand(kind: str, conditions: st.SearchStrategy[Expr], depth: int) -> st.SearchStrategy[Expr]:
    attributes, values = _KINDS[kind]
    found = [st.builds(Literal, st.sampled_from(values))]
    if attributes:
        found += [st.builds(_get, st.sampled_from(attributes))] * 2
    if depth:
        below = {k: _operand(k, conditions, depth - 1) for k in ("Long", "datetime", "duration")}
        same = _operand(kind, conditions, depth - 1)
        found.append(st.builds(If, conditions, same, same))
        if kind == "Long":
            arithmetic = st.sampled_from(["+", "-", "*"])
            found.append(st.builds(Binary, arithmetic, below["Long"], below["Long"]))
            found.append(st.builds(Unary, st.just("neg"), below["Long"]))
            found.append(st.builds(lambda d: Call("toDays", (d,)), below["duration"]))
        if kind == "datetime":
            found.append(
                st.builds(lambda t, d: Call("offset", (t, d)), below["datetime"], below["duration"])
            )
            found.append(st.builds(lambda t: Call("toDate", (t,)), below["datetime"]))
        if kind == "duration":
            pair = (below["datetime"], below["datetime"])
            found.append(st.builds(lambda t, u: Call("durationSince", (t, u)), *pair))
            found.append(st.builds(lambda t: Call("toTime", (t,)), below["datetime"]))
    return st.one_of(found)


_simple = st.one_of(
    st.builds(HasAttr, st.just(_resource), st.sampled_from([*SCALARS, "team"])),
    st.builds(_get, st.just("ok")),
    st.builds(
        Binary, st.just("contains"), st.builds(_get, st.just("team")), st.just(_get("owner"))
    ),
)


def _typed(conditions: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    found: list[st.SearchStrategy[Expr]] = []
    for kind in _KINDS:
        operand = _operand(kind, conditions, 2)
        ops = ["==", "!="]
        if kind in {"Long", "datetime", "duration"}:
            ops += ["<", "<=", ">", ">="]
        found.append(st.builds(Binary, st.sampled_from(ops), operand, operand))
        if kind == "decimal":
            named = st.sampled_from(_decimal_methods)
            found.append(st.builds(lambda f, a, b: Call(f, (a, b)), named, operand, operand))
        if kind == "String":
            found.append(st.builds(Like, operand, _patterns))
        if kind in {"Ward", "Group"}:
            known = st.builds(Literal, st.sampled_from([*_KINDS[kind][1], CedarSet.of(GROUPS[:1])]))
            found.append(st.builds(Binary, st.just("in"), operand, known))
            found.append(st.builds(Is, operand, st.sampled_from(["Ward", "Group"])))
    sets = st.sampled_from([_get("team"), _get("words"), _get("numbers")])
    known_sets = st.builds(Literal, _values)
    both = st.sampled_from(["containsAll", "containsAny", "==", "!="])
    found.append(st.builds(Binary, both, sets, known_sets))
    found.append(st.builds(Binary, both, known_sets, sets))
    found.append(st.builds(Binary, st.just("in"), st.just(Var("principal")), _of_row))
    return st.one_of(found)


typed = st.recursive(
    st.one_of(_simple, _typed(_simple)),
    lambda parts: st.one_of(
        st.builds(And, parts, parts),
        st.builds(Or, parts, parts),
        st.builds(Not, parts),
        st.builds(If, parts, parts, parts),
    ),
    max_leaves=6,
)


def env(row: dict[str, Anything]) -> Env:
    record = Entity(RECORD, RecordValue({"category": EntityUid("Category", "labs"), **row}))
    context = RecordValue({"purpose": "a"})
    return Env(ME, EntityUid("Action", "view"), RECORD, context, PEOPLE.with_(record))


ENVS = [env(row) for row in ROWS]


def meaning(expr: Expr, at: Env) -> bool | None:
    try:
        value = evaluate(expr, at)
    except EvaluationError:
        return None
    return value if isinstance(value, bool) else None


def check(expr: Expr) -> None:
    policy = Policy("p", "forbid", conditions=(Condition("when", expr),))
    try:
        check_filters(PolicySet((policy,), ""), SCHEMA, families=frozenset(FAMILIES))
    except NotAFilter as refused:
        event("refused: " + str(refused).partition(": ")[2].partition("row")[0])
        return
    outcome = specialise(expr, Known(env({}), SHAPE))
    event("by row" if outcome.true != outcome.false else "the same everywhere")
    assert sum(1 for _ in atoms(outcome.false)) <= MAX_ATOMS
    true, false = compile_predicate(outcome.true), compile_predicate(outcome.false)
    for row, at in zip(ROWS, ENVS, strict=True):
        wanted = meaning(expr, at)
        assert true(row) == (wanted is True)
        assert false(row) == (wanted is False)


@given(expressions)
def test_refused_at_load_or_true_false_and_failing_where_evaluation_is(expr: Expr) -> None:
    check(expr)


@given(typed)
def test_the_same_of_expressions_whose_types_fit(expr: Expr) -> None:
    check(expr)
