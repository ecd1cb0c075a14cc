"""From Cedar's JSON policy form (EST) to the tree of ``chartgate.cedar.ast``.

The JSON form is read because cedarpy's typed form refuses 150 conditions in a row and ill-typed
calls, and promises no stability. What this reader does not know it refuses, at every node.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, cast, get_args

from chartgate.cedar.ast import (
    WILDCARD,
    And,
    Binary,
    BinaryOp,
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
    Origin,
    Policy,
    RecordExpr,
    Scope,
    SetExpr,
    Slot,
    Unary,
    UnaryOp,
    Var,
)
from chartgate.cedar.values import is_i64
from chartgate.errors import Misconfigured
from chartgate.model.principal import EntityUid

# Every reader of the tree is recursive and Python allows some 1,000 frames. A level costs at most
# two of them (three inside a set, whose brackets are bounded), so half is left to the caller.
MAX_DEPTH: Final = 250

_BINARY: Final[frozenset[str]] = frozenset(get_args(BinaryOp))
_UNARY: Final[frozenset[str]] = frozenset(get_args(UnaryOp))
_VARIABLES: Final = frozenset({"principal", "action", "resource", "context"})

# Extension functions and methods of Cedar 4.5.
EXTENSION_CALLS: Final = frozenset(
    {
        "decimal", "lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual",
        "ip", "isIpv4", "isIpv6", "isLoopback", "isMulticast", "isInRange",
        "datetime", "duration", "offset", "durationSince", "toDate", "toTime",
        "toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays",
    }
)  # fmt: skip


class UnknownForm(Misconfigured):
    """The parser's JSON holds something this reader does not know: refused, never skipped."""

    code = "unknown_policy_form"


def _uid(form: Any) -> EntityUid:
    inner = form.get("__entity", form)
    return EntityUid(inner["type"], inner["id"])


def _literal(form: Any) -> Expr:
    if isinstance(form, bool | str) or (isinstance(form, int) and is_i64(form)):
        return Literal(form)
    if isinstance(form, dict) and set(form) == {"__entity"}:
        return Literal(_uid(form))
    raise UnknownForm("a literal of an unknown kind")


def _pattern(form: Any) -> tuple[Any, ...]:
    chunks: list[Any] = []
    for part in form:
        if part == "Wildcard":
            chunks.append(WILDCARD)
        elif chunks and isinstance(chunks[-1], str):
            chunks[-1] += part["Literal"]
        else:
            chunks.append(part["Literal"])
    return tuple(chunks)


def expression(form: Any, depth: int = 0) -> Expr:
    """One expression, ``depth`` levels down; deeper than ``MAX_DEPTH`` is refused."""
    if depth > MAX_DEPTH:
        raise UnknownForm(f"the condition is nested more than {MAX_DEPTH} operators deep")
    if not isinstance(form, dict) or len(form) != 1:
        raise UnknownForm("an expression of an unknown kind")
    [(kind, body)] = form.items()
    below = depth + 1
    if kind in _BINARY:
        left, right = expression(body["left"], below), expression(body["right"], below)
        return Binary(cast("BinaryOp", kind), left, right)
    if kind in _UNARY:
        return Unary(cast("UnaryOp", kind), expression(body["arg"], below))
    if kind in _FORMS:
        return _FORMS[kind](body, below)
    if kind in EXTENSION_CALLS:
        return Call(kind, tuple([expression(argument, below) for argument in body]))
    raise UnknownForm(f"an expression of an unknown kind: {kind}")


def _variable(body: Any, _: int) -> Expr:
    if body not in _VARIABLES:
        raise UnknownForm("an unknown variable")
    return Var(body)


def _and(body: Any, below: int) -> Expr:
    return And(expression(body["left"], below), expression(body["right"], below))


def _or(body: Any, below: int) -> Expr:
    return Or(expression(body["left"], below), expression(body["right"], below))


def _if(body: Any, below: int) -> Expr:
    test, then, otherwise = (body[part] for part in ("if", "then", "else"))
    return If(expression(test, below), expression(then, below), expression(otherwise, below))


def _is(body: Any, below: int) -> Expr:
    inside = expression(body["in"], below) if "in" in body else None
    return Is(expression(body["left"], below), body["entity_type"], inside)


def _record(body: Any, below: int) -> Expr:
    return RecordExpr(tuple([(name, expression(item, below)) for name, item in body.items()]))


_FORMS: Final[Mapping[str, Callable[[Any, int], Expr]]] = {
    "Value": lambda body, _: _literal(body),
    "Var": _variable,
    "&&": _and,
    "||": _or,
    "!": lambda body, below: Not(expression(body["arg"], below)),
    "if-then-else": _if,
    ".": lambda body, below: GetAttr(expression(body["left"], below), body["attr"]),
    "has": lambda body, below: HasAttr(expression(body["left"], below), body["attr"]),
    "like": lambda body, below: Like(expression(body["left"], below), _pattern(body["pattern"])),
    "is": _is,
    "Set": lambda body, below: SetExpr(tuple([expression(item, below) for item in body])),
    "Record": _record,
}


def _target(form: Any) -> EntityUid | Slot:
    return Slot(form["slot"]) if "slot" in form else _uid(form["entity"])


def _scope(form: Any) -> Scope:
    op = form["op"]
    if op == "All":
        return Scope()
    if op == "==":
        return Scope("==", (_target(form),))
    if op == "in" and "entities" in form:
        return Scope("in", tuple(_uid(uid) for uid in form["entities"]))
    if op == "in":
        return Scope("in", (_target(form),))
    if op == "is" and "in" in form:
        return Scope("is in", (_target(form["in"]),), form["entity_type"])
    if op == "is":
        return Scope("is", (), form["entity_type"])
    raise UnknownForm("a scope of an unknown kind")


def _conditions(forms: Any) -> tuple[Condition, ...]:
    return tuple(condition(form, len(forms)) for form in forms)


def condition(form: Any, clauses: int) -> Condition:
    """One clause of a policy that has so many.

    Clauses nest as operators do: a && b is one level, whether written with && or as two whens.
    """
    if form["kind"] not in ("when", "unless"):
        raise UnknownForm("a clause of an unknown kind")
    if clauses > MAX_DEPTH:
        raise UnknownForm(f"more than {MAX_DEPTH} clauses in one policy")
    return Condition(form["kind"], expression(form["body"], clauses))


def head(form: Any) -> tuple[Any, tuple[Scope, Scope, Scope]]:
    """Effect and scope of a policy."""
    if form["effect"] not in ("permit", "forbid"):
        raise UnknownForm("an unknown effect")
    return form["effect"], (
        _scope(form["principal"]), _scope(form["action"]), _scope(form["resource"])
    )  # fmt: skip


def policy(form: Any, policy_id: str, origin: Origin, text: str) -> Policy:
    """One policy of the JSON form."""
    try:
        effect, scopes = head(form)
        conditions = _conditions(form["conditions"])
        return Policy(policy_id, effect, *scopes, conditions, annotations(form), origin, text)
    except (KeyError, TypeError, AttributeError) as fault:
        raise UnknownForm("the parser's JSON form is not as expected") from fault


def single(forms: Any, *, templates: bool) -> Any:
    """The one policy of a JSON policy set; a template counts only where asked for."""
    found = [*forms["staticPolicies"].values(), *forms["templates"].values()]
    if forms["templates"] and not templates:
        raise UnknownForm("a template (?principal, ?resource) decides nothing by itself")
    if len(found) != 1 or forms["templateLinks"]:
        raise UnknownForm("not a single policy")
    return found[0]


def annotations(form: Any) -> tuple[tuple[str, str], ...]:
    """The annotations by name; one without a value has the empty text, as Cedar defines."""
    found = form.get("annotations", {})
    return tuple(sorted((name, value or "") for name, value in found.items()))
