"""Which policies can be turned into row filters, settled when they are loaded.

The row's attributes are unknown, all else is known before the query runs, and a condition may mix
both; ``docs/policy.md`` lists what may be asked. Whatever else touches a row attribute is refused
at load, by policy, clause and construct, and never at query time. So is a condition whose filter
would be out of proportion: what is true *and evaluated without error* can take more text than the
policy itself, and nothing here grows beyond ``MAX_ATOMS``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from chartgate.cedar.ast import (
    And,
    Binary,
    Call,
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
    RecordExpr,
    SetExpr,
    Unary,
    Var,
)
from chartgate.cedar.schema import Attribute, EntityRef, ExtensionType, PrimitiveType, Schema
from chartgate.cedar.schema import SetType as SchemaSet
from chartgate.errors import Misconfigured
from chartgate.model.disclosure import VIEW_ACTIONS
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible_pairs import (
    DECIMAL_METHODS,
    KNOWN,
    Kind,
    Objection,
    check_pair,
)

RECORD: Final = "Record"
ROW_ACTIONS: Final = frozenset({*VIEW_ACTIONS.values(), "create", "update", "delete"})
ARITHMETIC: Final = frozenset({"+", "-", "*"})
DURATION_UNITS: Final = frozenset({"toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays"})
COLUMN_EXTENSIONS: Final = frozenset({"datetime", "decimal"})
"""Extension types that a column can hold."""

MAX_ATOMS: Final = 1000
"""How many questions to a row one policy may come to, by count at load."""
MAX_CASES: Final = 32
"""How many pairs of values ``if`` may choose for one comparison."""
MAX_STEPS: Final = 16
"""How many steps of arithmetic one comparison may take: each is checked by itself in SQL."""


class NotAFilter(Misconfigured):
    """A policy asks of a row what no row filter can answer; names the policy and its place."""

    code = "not_a_filter"


# ── the schema's record ───────────────────────────────────────────────────────────────────────


def set_attributes(schema: Schema) -> frozenset[str]:
    """The set-valued attributes of a record."""
    return frozenset(
        name for name, a in record_attributes(schema).items() if isinstance(a.type, SchemaSet)
    )


def record_attributes(schema: Schema) -> Mapping[str, Attribute]:
    """What the schema says a record has. Raises ``NotAFilter`` when there is no record."""
    if RECORD not in schema.entities:
        raise NotAFilter(f"{schema.file}: the schema declares no entity {RECORD}")
    return schema.entities[RECORD].attributes


def attribute_kinds(schema: Schema) -> Mapping[str, str]:
    """What a column may hold for an attribute, or for a member of a set: ``String``, ``Long``,
    ``Bool``, ``datetime``, ``decimal`` or an entity type. What is left out no column can hold."""
    kinds = {}
    for name, attribute in record_attributes(schema).items():
        match attribute.type:
            case EntityRef(kind) | PrimitiveType(kind):
                kinds[name] = kind
            case ExtensionType(kind) if kind in COLUMN_EXTENSIONS:
                kinds[name] = kind
            case SchemaSet(EntityRef(kind) | PrimitiveType(kind)):
                kinds[name] = kind
    return kinds


def column_attributes(schema: Schema) -> frozenset[str]:
    """The attributes that a table of the data map may have a column for."""
    return frozenset(attribute_kinds(schema)) - set_attributes(schema) - {"category", "patient"}


def relation_types(schema: Schema) -> Mapping[str, str]:
    """The set attributes that a relation of the data map may hold, with their types."""
    kinds = attribute_kinds(schema)
    return {name: f"Set<{kinds[name]}>" for name in set_attributes(schema) if name in kinds}


def hierarchies(schema: Schema) -> frozenset[str]:
    """The entity types that can be in others."""
    return frozenset(name for name, entity in schema.entities.items() if entity.parents)


# ── expressions ───────────────────────────────────────────────────────────────────────────────


def is_resource(expr: Expr) -> bool:
    """Whether the expression is the variable ``resource``."""
    return isinstance(expr, Var) and expr.name == "resource"


def depends_on_row(expr: Expr) -> bool:
    """Whether the value depends on more of the resource than the label asked about."""
    if isinstance(expr, GetAttr) and is_resource(expr.base):
        return expr.attr != "category"
    if isinstance(expr, HasAttr) and is_resource(expr.base):
        return expr.attr != "category"
    if is_resource(expr):
        return True
    return any(depends_on_row(child) for child in children(expr))


def children(expr: Expr) -> tuple[Expr, ...]:
    """The expression's direct parts."""
    match expr:
        case And(left, right) | Or(left, right) | Binary(_, left, right):
            return (left, right)
        case Not(arg) | Unary(_, arg) | Like(arg, _):
            return (arg,)
        case GetAttr(base, _) | HasAttr(base, _):
            return (base,)
        case If(test, then, otherwise):
            return (test, then, otherwise)
        case Is(arg, _, inside):
            return (arg,) if inside is None else (arg, inside)
        case SetExpr(items) | Call(_, items):
            return items
        case RecordExpr(pairs):
            return tuple(item for _, item in pairs)
    return ()


def entities_in(expr: Expr) -> frozenset[EntityUid]:
    """Every entity that is written in the expression."""
    if isinstance(expr, Literal):
        return frozenset({expr.value}) if isinstance(expr.value, EntityUid) else frozenset()
    return frozenset().union(*map(entities_in, children(expr)))


# ── the check ─────────────────────────────────────────────────────────────────────────────────


def check_filters(
    policies: PolicySet, schema: Schema, *, families: frozenset[str] = frozenset()
) -> None:
    """Refuse every policy that cannot become a row filter. Raises ``NotAFilter``.

    ``families``: the entity types that form a hierarchy of which all members are known.
    """
    check = _Check(
        kinds=attribute_kinds(schema),
        declared=frozenset(record_attributes(schema)),
        sets=set_attributes(schema),
        entities=frozenset(schema.entities),
        unknown=hierarchies(schema) - families,
        families=families,
    )
    groups = frozenset(parent for action in schema.actions.values() for parent in action.parents)
    for policy in policies.policies:
        named = {e for e in policy.action.entities if isinstance(e, EntityUid)}
        if group := sorted(map(str, groups & (named | entities_in(policy.condition())))):
            # Filters are made action by action, and no action is kept as an entity: a forbid on a
            # group, in its scope or in a condition, would be overlooked and fail open.
            raise _refused(policy, f"{group[0]} is a group; name its actions one by one")
        if policy.action.op == "all" or {e.id for e in named} & ROW_ACTIONS:
            _check_policy(policy, check)


def _refused(policy: Policy, reason: str) -> NotAFilter:
    return NotAFilter(f"{policy.origin}: policy {policy.id}: {reason}")


def _check_policy(policy: Policy, check: "_Check") -> None:
    if policy.is_template:
        raise _refused(policy, "a template decides nothing until its slots are filled")
    if policy.effect == "permit" and (
        policy.action.op not in {"==", "in"} or not policy.action.entities
    ):
        raise _refused(policy, "a permit names its actions with == or a list")
    parts = [("the scope of resource", policy.resource.expression("resource"))]
    parts += [
        (f"the {'only' if len(policy.conditions) == 1 else _ordinal(n)} {clause.kind}", clause.body)
        for n, clause in enumerate(policy.conditions, start=1)
    ]
    for where, body in parts:
        try:
            check.condition(body)
        except Objection as objection:
            raise _refused(policy, f"in {where}: {objection}") from None
    size = check.condition(policy.condition())
    count = size.true if policy.effect == "permit" else size.false
    if count > MAX_ATOMS:
        raise _refused(
            policy,
            f"its filter could come to {_counted(count)} questions to each row, more than "
            f"{MAX_ATOMS}; write fewer alternatives, or one list with contains",
        )


def _ordinal(n: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(n, f"{n}th")


def _counted(count: int) -> str:
    return str(count) if count < 10**9 else "over a billion"


@dataclass(frozen=True, slots=True)
class _Size:
    """At most how many atoms say where a condition is true, and where it is false."""

    true: int
    false: int


_NO_ATOM: Final = _Size(0, 0)
_ATOM: Final = _Size(1, 1)


@dataclass(frozen=True, slots=True)
class _Operand:
    """What an operand can be: its kinds, in how many cases, the atoms that guard them, and the
    most steps of arithmetic in one of them."""

    kinds: frozenset[Kind]
    cases: int = 1
    guards: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class _Check:
    """The schema's record, and what may be asked of it. Raises ``Objection``."""

    kinds: Mapping[str, str]
    declared: frozenset[str]
    sets: frozenset[str]
    entities: frozenset[str]
    unknown: frozenset[str]
    families: frozenset[str]

    def condition(self, expr: Expr) -> _Size:
        """The size of an admissible condition."""
        if not depends_on_row(expr):
            return _NO_ATOM
        match expr:
            case And(left, right):
                return _both(self.condition(left), self.condition(right))
            case Or(left, right):
                return _swap(_both(_swap(self.condition(left)), _swap(self.condition(right))))
            case Not(arg):
                return _swap(self.condition(arg))
            case If(test, then, otherwise):
                t, a, b = self.condition(test), self.condition(then), self.condition(otherwise)
                both = t.true + t.false
                return _Size(both + a.true + b.true, both + a.false + b.false)
            case HasAttr(base, _) | Is(base, _, None) if is_resource(base):
                return _ATOM
            case Is(arg, _, inside):
                operand = self._of(arg, "is", self.entities)
                named = _Size(operand.cases + operand.guards, operand.cases + operand.guards)
                return named if inside is None else _both(named, self._pair("in", arg, inside))
            case Like(arg, _):
                return self._asked(self._of(arg, "like", frozenset({"String"})))
            case Unary("isEmpty", arg):
                operand = self.operand(arg)
                if any(not kind.is_set for kind in operand.kinds - {KNOWN}):
                    raise Objection("isEmpty can be asked of a set attribute only")
                return self._asked(operand)
            case Binary(op, left, right) if op not in ARITHMETIC:
                return self._pair(op, left, right)
            case Call(fn, (left, right)) if fn in DECIMAL_METHODS:
                return self._pair(fn, left, right)
        operand = self._of(expr, "a condition", frozenset({"Bool"}))
        return self._asked(operand)

    def operand(self, expr: Expr) -> _Operand:
        """What an admissible operand can be."""
        if not depends_on_row(expr):
            return _Operand(frozenset({KNOWN}))
        match expr:
            case GetAttr(base, attribute) if is_resource(base):
                return _Operand(frozenset({self._attribute(attribute)}))
            case If(test, then, otherwise):
                size, one, other = self.condition(test), self.operand(then), self.operand(otherwise)
                return _Operand(
                    one.kinds | other.kinds,
                    one.cases + other.cases,
                    size.true * one.cases + size.false * other.cases + one.guards + other.guards,
                    max(one.steps, other.steps),
                )
            case Unary("neg", arg):
                return self._stepped("-", "Long", (arg, "Long"))
            case Binary(op, left, right) if op in ARITHMETIC:
                return self._stepped(op, "Long", (left, "Long"), (right, "Long"))
            case Call("offset", (left, right)):
                return self._stepped("offset", "datetime", (left, "datetime"), (right, "duration"))
            case Call("durationSince", (left, right)):
                pair = ((left, "datetime"), (right, "datetime"))
                return self._stepped("durationSince", "duration", *pair)
            case Call("toDate", (arg,)):
                return self._stepped("toDate", "datetime", (arg, "datetime"))
            case Call("toTime", (arg,)):
                return self._stepped("toTime", "duration", (arg, "datetime"))
            case Call(fn, (arg,)) if fn in DURATION_UNITS:
                return self._stepped(fn, "Long", (arg, "duration"))
            case GetAttr(_, attribute) | HasAttr(_, attribute):
                raise Objection(f"{attribute} of what a row names is not known here")
            case Var():
                raise Objection("a row is known by its attributes, not as an entity")
            case SetExpr() | RecordExpr():
                raise Objection("a set or record literal cannot hold a row attribute")
            case Call(fn, args) if fn not in DECIMAL_METHODS or len(args) != 2:
                raise Objection(f"the function {fn} cannot be asked of a row attribute")
        size = self.condition(expr)
        # As an operand, a condition is one of two known values.
        return _Operand(frozenset({KNOWN}), 2, size.true + size.false)

    def _attribute(self, attribute: str) -> Kind:
        kind = self.kinds.get(attribute)
        if kind is None and attribute in self.declared:
            raise Objection(f"no column can hold the row attribute {attribute}")
        # One that the schema does not know is refused by validation; without it, it errs.
        return Kind(kind or "", attribute=attribute, is_set=attribute in self.sets)

    def _of(self, expr: Expr, what: str, kinds: frozenset[str]) -> _Operand:
        """An operand that must be a scalar of one of the kinds wherever it is the row's."""
        operand = self.operand(expr)
        for kind in sorted(operand.kinds - {KNOWN}, key=str):
            if kind.is_set or (kind.name and kind.name not in kinds):
                raise Objection(f"{what} cannot be asked of {kind}")
        return operand

    def _asked(self, operand: _Operand) -> _Size:
        return _Size(operand.cases + operand.guards, operand.cases + operand.guards)

    def _stepped(self, op: str, result: str, *args: tuple[Expr, str]) -> _Operand:
        found = _Operand(frozenset({KNOWN}))
        for expr, kind in args:
            found = _beside(found, self._of(expr, op, frozenset({kind})))
        return replace(found, kinds=frozenset({Kind(result, computed=True)}), steps=found.steps + 1)

    def _pair(self, op: str, left: Expr, right: Expr) -> _Size:
        one, other = self.operand(left), self.operand(right)
        for first in sorted(one.kinds, key=str):
            for second in sorted(other.kinds, key=str):
                check_pair(op, first, second, unknown=self.unknown, families=self.families)
        both = _beside(one, other)
        has_set = any(kind.is_set for kind in (*one.kinds, *other.kinds))
        # That two sets are equal is two atoms: nothing is missing, nothing is more.
        each = 2 if has_set and op in {"==", "!="} else 1
        count = each * both.cases + both.guards
        return _Size(count, count)


def _beside(one: _Operand, other: _Operand) -> _Operand:
    """Both operands of an operator: every case of one meets every case of the other."""
    cases, steps = one.cases * other.cases, one.steps + other.steps
    if cases > MAX_CASES:
        raise Objection("'if' chooses between too many values here")
    if steps >= MAX_STEPS:
        raise Objection(f"more than {MAX_STEPS} steps of arithmetic in one comparison")
    guards = one.guards * other.cases + other.guards * one.cases
    return _Operand(one.kinds | other.kinds, cases, guards, steps)


def _both(left: _Size, right: _Size) -> _Size:
    """As ``partial`` builds ``&&``."""
    if _NO_ATOM in (left, right):
        return right if left == _NO_ATOM else left
    return _Size(left.true + right.true, left.false + left.true + right.false)


def _swap(size: _Size) -> _Size:
    return _Size(size.false, size.true)
