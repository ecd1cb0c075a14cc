"""Policies about hostile rows: well-typed conditions over everything that may be asked of a row."""

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
    Scope,
    Unary,
    Var,
)
from chartgate.cedar.values import CedarSet, DateTime, Decimal, Duration, Value
from chartgate.model.principal import EntityUid
from strategies.filter_world import (
    DATES,
    GROUPS,
    INSTANTS,
    LIMITS,
    LONGS,
    ME,
    PEOPLE,
    PRICES,
    TEXTS,
)

_resource, _principal = Var("resource"), Var("principal")
_moments = [DateTime(ms + d) for _, ms in (*INSTANTS, *DATES) if ms is not None for d in (0, 1, -1)]
_moments += [DateTime(2**63 - 1), DateTime(-(2**63))]
KINDS: dict[str, tuple[list[str], list[Value]]] = {
    "String": (["name", "code", "unmapped"], [*TEXTS, "nul\0"]),
    "Long": (["size", "count"], [*LONGS]),
    "Bool": (["ok", "active"], [True, False]),
    "Person": (["owner", "deputy"], [*PEOPLE, EntityUid("Person", "a\0")]),
    "Group": (["group"], [*GROUPS]),
    "datetime": (["since", "until"], [*_moments]),
    "duration": ([], [Duration(n) for n in (0, 1, -1, 86_400_000, 2**63 - 1, -(2**63))]),
    "decimal": (["price", "limit"], [Decimal(u) for _, u in (*PRICES, *LIMITS) if u is not None]),
}
ATTRIBUTES = [name for names, _ in KINDS.values() for name in names]
SETS = {"words": "String", "team": "Person", "numbers": "Long", "nowhere": "String"}
CONTEXT: dict[str, list[Expr]] = {
    "String": [GetAttr(_principal, "name"), GetAttr(Var("context"), "purpose")],
    "Long": [GetAttr(_principal, "rank")],
    "datetime": [GetAttr(Var("context"), "now")],
}


def of_row(name: str) -> Expr:
    """``resource.<name>``."""
    return GetAttr(_resource, name)


def _known(kind: str) -> st.SearchStrategy[Expr]:
    literal = st.builds(Literal, st.sampled_from(KINDS[kind][1]))
    return st.one_of(literal, st.sampled_from(CONTEXT[kind])) if kind in CONTEXT else literal


def _known_sets(kind: str) -> st.SearchStrategy[Expr]:
    values = st.lists(st.sampled_from(KINDS[kind][1]), max_size=14)
    literal = st.builds(lambda some: Literal(CedarSet.of(some)), values)
    if kind == "String":
        named = [GetAttr(_principal, "few"), GetAttr(_principal, "many")]
        return st.one_of(literal, st.sampled_from(named))
    return literal


_patterns = st.lists(
    st.one_of(st.just(WILDCARD), st.sampled_from([*TEXTS, "a", "b"])), max_size=3
).map(lambda parts: tuple(part for n, part in enumerate(parts) if part != "" or n == 0))


# What an operand can be computed by: operator or method, and the kinds that it takes.
_COMPUTED: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "Long": [
        *((op, ("Long", "Long")) for op in ("+", "-", "*")),
        ("neg", ("Long",)),
        *((fn, ("duration",)) for fn in ("toMilliseconds", "toSeconds", "toMinutes", "toDays")),
    ],
    "datetime": [("offset", ("datetime", "duration")), ("toDate", ("datetime",))],
    "duration": [("durationSince", ("datetime", "datetime")), ("toTime", ("datetime",))],
}


@st.composite
def _operand(draw: st.DrawFn, kind: str, depth: int) -> Expr:
    names, _ = KINDS[kind]
    form = draw(
        st.sampled_from(["known", *["row"] * 3 * bool(names), *["deeper"] * 2 * bool(depth)])
    )
    if form == "row":
        return of_row(draw(st.sampled_from(names)))
    if form == "known":
        return draw(_known(kind))
    computed = draw(st.sampled_from([None, *_COMPUTED.get(kind, ())]))
    if computed is None:
        return If(draw(_plain), draw(_operand(kind, depth - 1)), draw(_operand(kind, depth - 1)))
    op, kinds = computed
    args = tuple(draw(_operand(other, depth - 1)) for other in kinds)
    if op == "neg":
        return Unary("neg", args[0])
    return Binary(op, *args) if op in {"+", "-", "*"} else Call(op, args)  # type: ignore[arg-type]


_equal, _order = st.sampled_from(["==", "!="]), st.sampled_from(["<", "<=", ">", ">="])
_methods = st.sampled_from(["lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"])


@st.composite
def _comparison(draw: st.DrawFn, kind: str) -> Expr:
    ordered = kind in {"Long", "datetime", "duration"}
    forms = ["equal", *["order"] * 2 * ordered]
    if kind == "decimal":
        forms.append("method")
    if kind == "String":
        forms += ["like"] * 2
    if KINDS[kind][0]:
        forms.append("among")
    if kind in {"Person", "Group"}:
        forms += ["in", "is"]
    form, operand = draw(st.sampled_from(forms)), _operand(kind, 2 if ordered else 1)
    if form == "equal":
        return Binary(draw(_equal), draw(operand), draw(operand))
    if form == "order":
        return Binary(draw(_order), draw(operand), draw(operand))
    if form == "method":
        return Call(draw(_methods), (draw(operand), draw(operand)))
    if form == "like":
        return Like(draw(operand), draw(_patterns))
    attribute = of_row(draw(st.sampled_from(KINDS[kind][0])))
    if form == "among":
        return Binary("contains", draw(_known_sets(kind)), attribute)
    if form == "is":
        return Is(attribute, draw(st.sampled_from(["Person", "Group"])))
    if kind == "Group" and draw(st.booleans()):
        return Binary("in", _principal, attribute)
    return Binary("in", attribute, draw(st.one_of(_known(kind), _known_sets(kind))))


@st.composite
def _set_condition(draw: st.DrawFn) -> Expr:
    name, kind = draw(st.sampled_from(sorted(SETS.items())))
    held, attribute = of_row(name), of_row(draw(st.sampled_from(KINDS[kind][0])))
    op = draw(
        st.sampled_from(["contains", "held", "isEmpty", "containsAll", "containsAny", "==", "!="])
    )
    if op == "contains":
        return Binary("contains", held, draw(_known(kind)))
    if op == "held":
        if kind == "Person" and draw(st.booleans()):
            return Binary("in", attribute, held)
        return Binary("contains", held, attribute)
    if op == "isEmpty":
        return Unary("isEmpty", held)
    known = draw(_known_sets(kind))
    return Binary(op, held, known) if draw(st.booleans()) else Binary(op, known, held)


_plain = st.one_of(
    st.builds(HasAttr, st.just(_resource), st.sampled_from([*ATTRIBUTES, *SETS])),
    st.builds(of_row, st.sampled_from(["ok", "active"])),
    st.builds(Binary, st.just("in"), st.just(_principal), st.builds(Literal, st.sampled_from(GROUPS))),
    st.builds(Binary, st.just("<"), st.just(of_row("count")), st.just(Literal(2))),
)  # fmt: skip
leaves = st.one_of(_plain, _set_condition(), *(_comparison(kind) for kind in KINDS))


def _guarded(body: Expr) -> Expr:
    """The condition behind guards of what it reads, as policies are mostly written."""
    names = sorted({e.attr for e in _walk(body) if isinstance(e, GetAttr) and e.base == _resource})
    for name in reversed(names):
        body = And(HasAttr(_resource, name), body)
    return body


def _walk(expr: Expr) -> list[Expr]:
    from chartgate.targets.admissible import children

    return [expr, *(found for child in children(expr) for found in _walk(child))]


conditions = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.builds(And, parts, parts),
        st.builds(Or, parts, parts),
        st.builds(Not, parts),
        st.builds(If, parts, parts, parts),
        st.builds(_guarded, parts),
    ),
    max_leaves=5,
)
_scopes = st.sampled_from(
    [Scope()] * 4 + [Scope("==", (ME,)), *(Scope("in", (group,)) for group in GROUPS[:3])]
)
_actions = ["view", "view_summary", "view_masked"]
_some_actions = st.lists(st.sampled_from(_actions), min_size=1, max_size=3, unique=True).map(
    lambda names: Scope("in", tuple(EntityUid("Action", name) for name in names))
)
_clauses = st.lists(
    st.builds(Condition, st.sampled_from(["when", "when", "unless"]), conditions), max_size=2
).map(tuple)
permits = st.builds(
    lambda who, what, clauses: Policy("permit", "permit", who, what, conditions=clauses),
    _scopes, _some_actions, _clauses,
)  # fmt: skip
forbids = st.builds(
    lambda who, what, clauses: Policy("forbid", "forbid", who, what, conditions=clauses),
    _scopes, st.one_of(st.just(Scope()), _some_actions), _clauses,
)  # fmt: skip
policy_lists = st.builds(
    lambda some, other: [*some, *other],
    st.lists(permits, min_size=1, max_size=3),
    st.lists(forbids, max_size=2),
)
