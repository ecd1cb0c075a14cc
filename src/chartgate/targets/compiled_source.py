"""One Cedar expression as Python source, with what is known of its value.

The rules kept: operands are evaluated in the reference evaluator's order; text from a policy never
enters the source, literals and attribute names are reached through the tuple ``L``; a local of the
generated code is one lower-case letter with at most one more letter or digits, a runtime name
begins with ``X_``.

The locals: ``p a r c`` the request, ``pd rd`` the attributes of principal and resource, ``pa`` the
principal's ancestors, ``E`` the entities, ``o`` the request's own entity, ``g`` the ancestors of
the entities that a guard has checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

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
    RecordExpr,
    SetExpr,
    Slot,
    Unary,
    Var,
)
from chartgate.cedar.extensions import CONSTRUCTORS
from chartgate.cedar.values import CedarSet, Value, key, type_name
from chartgate.model.principal import EntityUid

Kind = str
"""``type_name`` of the value, or "" where it cannot be told before the request."""

Path = tuple[str, str]
"""A variable and one of its attributes."""

Known = Mapping[Path, Kind]
"""Attributes that are there, with their kind ("" = any), as a guard has checked."""

Shared: TypeAlias = dict[tuple[type, object], object]
"""Equal values of many policies, each kept once."""

MAX_NESTING: Final = 50
"""Beyond it the reference evaluator is called: Python's own parser stops at 200 brackets."""

ATTRIBUTES: Final = {"principal": "pd", "resource": "rd", "context": "c"}
_MOST_BRACKETS: Final = 150
_VARIABLES: Final = {"principal": "p", "action": "a", "resource": "r", "context": "c"}
_ORDER: Final = {"<": "X_lt", "<=": "X_le", ">": "X_gt", ">=": "X_ge"}
_SUM: Final = {"+": "X_add", "-": "X_sub", "*": "X_mul"}
# Kinds on which Python's == is Cedar's, whatever is on the other side.
_PLAIN: Final = frozenset({"String", "entity", "decimal", "ipaddr", "datetime", "duration", "Set"})
# Calls that answer a Bool or one other kind.
_ANSWERS: Final = {
    "lessThan": "Bool", "lessThanOrEqual": "Bool", "greaterThan": "Bool",
    "greaterThanOrEqual": "Bool", "isIpv4": "Bool", "isIpv6": "Bool", "isLoopback": "Bool",
    "isMulticast": "Bool", "isInRange": "Bool", "offset": "datetime", "toDate": "datetime",
    "durationSince": "duration", "toTime": "duration", "toMilliseconds": "Long",
    "toSeconds": "Long", "toMinutes": "Long", "toHours": "Long", "toDays": "Long",
    "decimal": "decimal", "ip": "ipaddr", "datetime": "datetime", "duration": "duration",
}  # fmt: skip


class TooDeep(Exception):
    """The expression does not fit Python's parser; it is not an error of the policy."""


@dataclass(frozen=True, slots=True)
class Code:
    """Source of an expression; ``safe``: it never raises."""

    text: str
    kind: Kind = ""
    safe: bool = False


_FAIL: Final = Code("X_fail()", "Bool")
_TRUE: Final = Code("True", "Bool", safe=True)
_FALSE: Final = Code("False", "Bool", safe=True)


def constant(expr: Expr) -> Value | None:
    """The value of an expression that depends on nothing and cannot fail, else None."""
    match expr:
        case Literal(value):
            return value
        case SetExpr(items):
            values = [constant(item) for item in items]
            known = [value for value in values if value is not None]
            return CedarSet.of(known) if len(known) == len(values) else None
        case Call(fn, (Literal(str() as text),)) if fn in CONSTRUCTORS:
            return CONSTRUCTORS[fn](text)
    return None


class Writer:
    """Writes expressions of one function; gathers the values they name in ``literals``."""

    def __init__(self, known: Known, shared: Shared | None = None) -> None:
        self.literals: list[object] = []
        self._known: Final = known
        self._shared: Final[Shared] = {} if shared is None else shared
        self._above: Final = {path: f"g[{n}]" for n, path in enumerate(entity_paths(known))}
        self._places: Final[dict[tuple[type, object], int]] = {}
        self._locals = 0

    def name(self, value: object) -> str:
        """The place of a value in ``L``."""
        try:
            # One object for equal values of all policies: what is looked at often stays near.
            value = self._shared.setdefault((type(value), value), value)
            place = self._places.setdefault((type(value), value), len(self.literals))
        except TypeError:
            place = len(self.literals)
        if place == len(self.literals):
            self.literals.append(value)
        return f"L[{place}]"

    def place(self, value: object) -> str:
        """A place of its own for a value that is only equal to itself: a table."""
        self.literals.append(value)
        return f"L[{len(self.literals) - 1}]"

    def local(self) -> str:
        """A fresh local."""
        self._locals += 1
        return f"t{self._locals}"

    def boolean(self, expr: Expr, depth: int = 0) -> Code:
        """Source that is True or False, or raises."""
        return self._as_bool(self.write(expr, depth))

    def write(self, expr: Expr, depth: int = 0) -> Code:
        """Source of the expression's value."""
        if depth > MAX_NESTING:
            raise TooDeep
        below = depth + 1
        value = constant(expr)
        if value is not None:
            return self._constant(value)
        match expr:
            case Literal():  # pragma: no cover - a constant
                raise TooDeep
            case Var(name):
                kind = "Record" if name == "context" else "entity"
                return Code(_VARIABLES[name], kind, safe=True)
            case And():
                return self._chain(expr, And, " and ", depth)
            case Or():
                return self._chain(expr, Or, " or ", depth)
            case Not(arg):
                inner = self.boolean(arg, below)
                return Code(f"(not {inner.text})", "Bool", inner.safe)
            case If(test, then, otherwise):
                return self._if(
                    self.boolean(test, below), self.write(then, below), self.write(otherwise, below)
                )
            case Binary(op, left, right):
                return self._binary(op, left, right, below)
            case Unary(op, arg):
                inner = self.write(arg, below)
                if op == "neg":
                    return Code(f"X_neg({inner.text})", "Long")
                return Code(f"(not X_keys({inner.text}))", "Bool", _sure(inner, "Set"))
            case GetAttr(base, attr):
                return self._attribute(base, attr, below)
            case HasAttr(base, attr):
                if isinstance(base, Var) and base.name in ATTRIBUTES:
                    text = f"({self.name(attr)} in {ATTRIBUTES[base.name]})"
                    return Code(text, "Bool", safe=True)
                inner = self.write(base, below)
                safe = inner.safe and inner.kind in ("entity", "Record")
                return Code(f"X_has({inner.text}, {self.name(attr)}, E, o)", "Bool", safe)
            case Like(arg, pattern):
                inner = self.write(arg, below)
                safe = _sure(inner, "String")
                if len(pattern) == 1 and isinstance(pattern[0], str):
                    return Code(f"(X_text({inner.text}) == {self.name(pattern[0])})", "Bool", safe)
                return Code(f"X_like({inner.text}, {self.name(pattern)})", "Bool", safe)
            case Is(arg, type_, inside):
                return self._is(arg, type_, inside, below)
            case SetExpr(items):
                codes = [self.write(item, below) for item in items]
                text = "".join(f"{code.text}, " for code in codes)
                return Code(f"X_set(({text}))", "Set", all(code.safe for code in codes))
            case RecordExpr(members):
                parts = [(self.name(n), self.write(item, below)) for n, item in members]
                text = "".join(f"({name}, {code.text}), " for name, code in parts)
                return Code(f"X_record(({text}))", "Record", all(c.safe for _, c in parts))
            case Call(fn, args):
                if fn in CONSTRUCTORS and len(args) == 1 and isinstance(args[0], Literal):
                    return _FAIL
                codes = [self.write(arg, below) for arg in args]
                text = "".join(f"{code.text}, " for code in codes)
                return Code(f"X_call({self.name(fn)}, ({text}))", _ANSWERS.get(fn, ""))
            case Slot():
                return _FAIL
        assert_never(expr)  # pragma: no cover - every node has its case above

    def _constant(self, value: Value) -> Code:
        if value is True:
            return _TRUE
        if value is False:
            return _FALSE
        return Code(self.name(value), type_name(value), safe=True)

    def _as_bool(self, code: Code) -> Code:
        if code.kind == "Bool":
            return code
        if code.kind:
            return _FAIL
        kept = self.local()
        text = f"(({kept} := {code.text}) is True or {kept} is not False and X_fail())"
        return Code(text, "Bool")

    def _chain(self, expr: Expr, kind: type[And] | type[Or], word: str, depth: int) -> Code:
        # a && (b && c) is (a && b) && c, errors included: a chain costs one level.
        codes = [self.boolean(part, depth + 1) for part in operands(expr, kind)]
        text = word.join(code.text for code in codes)
        return Code(f"({text})", "Bool", all(code.safe for code in codes))

    def _if(self, test: Code, then: Code, otherwise: Code) -> Code:
        return Code(
            f"({then.text} if {test.text} else {otherwise.text})",
            then.kind if then.kind == otherwise.kind else "",
            test.safe and then.safe and otherwise.safe,
        )

    def _attribute(self, base: Expr, attr: str, below: int) -> Code:
        if isinstance(base, Var) and base.name in ATTRIBUTES:
            text = f"{ATTRIBUTES[base.name]}[{self.name(attr)}]"
            kind = self._known.get((base.name, attr))
            return Code(text) if kind is None else Code(text, kind, safe=True)
        inner = self.write(base, below)
        return Code(f"X_attr({inner.text}, {self.name(attr)}, E, o)")

    def _is(self, arg: Expr, type_: str, inside: Expr | None, below: int) -> Code:
        if inside is not None and isinstance(arg, Var):
            return self._chain(And(Is(arg, type_), Binary("in", arg, inside)), And, " and ", below)
        inner = self.write(arg, below)
        if inside is None:
            if inner.kind == "entity":
                return Code(f"({inner.text}[0] == {self.name(type_)})", "Bool", inner.safe)
            return Code(f"X_is({inner.text}, {self.name(type_)})", "Bool")
        kept = self.local()
        target = self.write(inside, below)
        text = f"(X_is(({kept} := {inner.text}), {self.name(type_)}) and X_in({kept}, {target.text}, E, o))"
        safe = _sure(inner, "entity") and _sure(target, "entity")
        return Code(text, "Bool", safe)

    def _binary(self, op: str, left: Expr, right: Expr, below: int) -> Code:
        if op == "in":
            return self._in(left, right, below)
        if op == "contains":
            return self._contains(left, right, below)
        a, b = self.write(left, below), self.write(right, below)
        if op == "==":
            return self._equal(a, b)
        if op == "!=":
            same = self._equal(a, b)
            return Code(f"(not {same.text})", "Bool", same.safe)
        if op in _ORDER:
            if a.kind == b.kind == "Long":
                return Code(f"({a.text} {op} {b.text})", "Bool", a.safe and b.safe)
            if a.kind == b.kind and a.kind in ("datetime", "duration"):
                return Code(f"({a.text}.ms {op} {b.text}.ms)", "Bool", a.safe and b.safe)
            return Code(f"{_ORDER[op]}({a.text}, {b.text})", "Bool")
        if op in _SUM:
            return Code(f"{_SUM[op]}({a.text}, {b.text})", "Long")
        if op in ("containsAll", "containsAny"):
            mine, theirs = self._keys(a, left), self._keys(b, right)
            safe = _sure(a, "Set") and _sure(b, "Set")
            if op == "containsAll":
                return Code(f"({mine} >= {theirs})", "Bool", safe)
            return Code(f"(not {mine}.isdisjoint({theirs}))", "Bool", safe)
        if op == "hasTag":
            safe = _sure(a, "entity") and _sure(b, "String")
            return Code(f"X_has_tag({a.text}, {b.text}, E, o)", "Bool", safe)
        if op == "getTag":
            return Code(f"X_get_tag({a.text}, {b.text}, E, o)")
        return _FAIL

    def _keys(self, code: Code, expr: Expr) -> str:
        value = constant(expr)
        if isinstance(value, CedarSet):
            return self.name(value.keys)
        if code.kind == "Set":
            return f"{code.text}.keys"
        # The slot behind the property: a property costs a call.
        kept = self.local()
        return f"({kept}._keys if ({kept} := {code.text}).__class__ is X_SET else X_keys({kept}))"

    def _equal(self, a: Code, b: Code) -> Code:
        safe = a.safe and b.safe
        if a.kind and b.kind and a.kind != b.kind:
            # Never equal; what each side has to say about errors is still heard.
            return _FALSE if safe else Code(f"X_false({a.text}, {b.text})", "Bool")
        if "Bool" in (a.kind, b.kind):
            return Code(f"({a.text} is {b.text})", "Bool", safe)
        if a.kind in _PLAIN or b.kind in _PLAIN or a.kind == b.kind == "Long":
            return Code(f"({a.text} == {b.text})", "Bool", safe)
        # Left over: an unknown beside a Long (to Python, True == 1), records, two unknowns.
        return Code(f"X_equal({a.text}, {b.text})", "Bool", safe)

    def _in(self, left: Expr, right: Expr, below: int) -> Code:
        a = self.write(left, below)
        target = constant(right)
        targets = _entities_of(target)
        above = self._ancestors(left, a)
        if isinstance(target, EntityUid):
            named = self.name(target)
            if above is not None:
                return Code(f"({named} in {above})", "Bool", a.safe)
            return Code(f"X_in_one({a.text}, {named}, E, o)", "Bool")
        if targets is not None:
            named = self.name(targets)
            if above is not None:
                return Code(f"(not {above}.isdisjoint({named}))", "Bool", a.safe)
            return Code(f"X_in_set({a.text}, {named}, E, o)", "Bool")
        b = self.write(right, below)
        safe = _sure(a, "entity") and _sure(b, "entity")
        return Code(f"X_in({a.text}, {b.text}, E, o)", "Bool", safe)

    def _ancestors(self, expr: Expr, code: Code) -> str | None:
        if code.text == "p":
            return "pa"
        if isinstance(expr, GetAttr) and isinstance(expr.base, Var):
            checked = self._above.get((expr.base.name, expr.attr))
            if checked is not None:
                return checked
        return f"X_anc(E, o, {code.text})" if code.kind == "entity" else None

    def _contains(self, left: Expr, right: Expr, below: int) -> Code:
        a, b = self.write(left, below), self.write(right, below)
        members = _entities_of(constant(left))
        if members is not None:
            # Only an entity has an entity's class; what has no hash is not looked up.
            kept = self.local()
            text = f"(({kept} := {b.text}).__class__ is X_UID and {kept} in {self.name(members)})"
            return Code(text, "Bool", b.safe)
        value = constant(right)
        if value is not None:
            wanted = self.name(key(value))
        elif len(b.text) == 1 and b.kind == "entity":
            wanted = f'("entity", {b.text}[0], {b.text}[1])'
        else:
            kept = self.local()
            wanted = f'("entity", ({kept} := {b.text})[0], {kept}[1])'
            if b.kind != "entity":
                wanted = (
                    f'(("entity", {kept}[0], {kept}[1]) '
                    f"if ({kept} := {b.text}).__class__ is X_UID else X_key({kept}))"
                )
        safe = _sure(a, "Set") and b.safe
        return Code(f"({wanted} in {self._keys(a, left)})", "Bool", safe)


def check_nesting(text: str) -> None:
    """Raise ``TooDeep`` where Python would not read the source."""
    if text.count("(") <= _MOST_BRACKETS:
        return
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth > _MOST_BRACKETS:
            raise TooDeep


def entity_paths(known: Known) -> list[Path]:
    """The attributes of which a guard has worked out the ancestors, in the order of ``g``."""
    return sorted(path for path, kind in known.items() if kind == "entity")


def _sure(code: Code, kind: Kind) -> bool:
    return code.safe and code.kind == kind


def _entities_of(value: Value | None) -> frozenset[EntityUid] | None:
    if not isinstance(value, CedarSet):
        return None
    members = [member for member in value if isinstance(member, EntityUid)]
    return frozenset(members) if len(members) == len(value) else None


def operands(expr: Expr, kind: type[And] | type[Or]) -> list[Expr]:
    """The operands of a chain of ``&&`` or of ``||``, in the order of evaluation."""
    found: list[Expr] = []
    waiting = [expr]
    while waiting:
        part = waiting.pop()
        if isinstance(part, And | Or) and isinstance(part, kind):
            waiting += (part.right, part.left)
        else:
            found.append(part)
    return found
