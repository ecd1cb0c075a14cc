"""Policies in plain words: what a conjunct asks, what a value is, which records a formula means.

The rules kept: the words are made from the tree alone, so they cannot say what the policy does not;
what has no words of its own is told as its Cedar text, never left out. Patients are never named:
a patient's key in an assignment is told as "the patient that the assignment is about".
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from chartgate.app.rolebook import RoleBook
from chartgate.cedar.ast import (
    And,
    Binary,
    Expr,
    GetAttr,
    HasAttr,
    Is,
    Literal,
    Not,
    Or,
    SetExpr,
    Unary,
    Var,
)
from chartgate.cedar.text import expression_text
from chartgate.cedar.values import CedarSet, DateTime, Value
from chartgate.model.disclosure import Disclosure
from chartgate.model.principal import EntityUid
from chartgate.targets.formula import (
    ALWAYS,
    NEVER,
    All,
    Any,
    Compares,
    Formula,
    HasMember,
    IsOneOf,
    Present,
    Scalar,
)

HERSELF: Final = "\0herself"
"""The id that stands for the person asked about, in formulas made for everyone like her."""

LEVELS: Final = {
    Disclosure.FULL: "in full",
    Disclosure.SUMMARY: "in summary",
    Disclosure.MASKED: "masked",
    Disclosure.WITHHELD: "nothing",
}

_NOUNS: Final[Mapping[tuple[str, str], str]] = {
    ("principal", "departments"): "the person's departments",
    ("principal", "references"): "the references (tickets, agreements) of the assignment",
    ("principal", "patients"): "the patients that the assignment is about",
    ("resource", "category"): "the category",
    ("resource", "departments"): "the departments that treat the patient",
    ("resource", "department"): "the department that the row names",
    ("resource", "care_team"): "the patient's care team",
    ("resource", "author"): "the author",
    ("resource", "patient"): "the patient",
    ("resource", "age_bands"): "the patient's age band",
    ("context", "purpose"): "the purpose",
    ("context", "now"): "the time",
    ("context", "source"): "the database",
}
_VARIABLES: Final = {
    "principal": "the person",
    "resource": "the record",
    "action": "the action",
    "context": "the circumstances",
}
_RELATIONS: Final = {
    "==": "is",
    "!=": "is not",
    "<": "is before or below",
    "<=": "is not after or above",
    ">": "is after or above",
    ">=": "is not before or below",
    "contains": "include",
    "containsAll": "include all of",
    "containsAny": "include one of",
}


def words_of(expr: Expr, roles: RoleBook | None = None) -> str:
    """What the condition asks, in words."""
    return _words(expr, roles)


def _words(expr: Expr, roles: RoleBook | None) -> str:
    match expr:
        case And(left, right):
            return f"{_grouped(left, Or, roles)} and {_grouped(right, Or, roles)}"
        case Or(left, right):
            return f"{_grouped(left, And, roles)}, or {_grouped(right, And, roles)}"
        case Not(arg):
            return _negated(arg, roles)
        case HasAttr(Var("resource"), attr):
            return f"the record names {_noun_of('resource', attr)}"
        case HasAttr(base, attr):
            return f"{noun(base)} has {attr}"
        case Unary("isEmpty", arg):
            return f"{noun(arg)} are none"
        case Is(arg, type_, None):
            return f"{noun(arg)} is a {type_}"
        case Binary(op, left, right):
            return _relation(op, left, right, roles)
        case Literal(True):
            return "always"
        case Literal(False):
            return "never"
    return f"`{expression_text(expr)}`"


def _grouped(expr: Expr, apart: type, roles: RoleBook | None) -> str:
    text = _words(expr, roles)
    return f"({text})" if isinstance(expr, apart) else text


def _relation(op: str, left: Expr, right: Expr, roles: RoleBook | None) -> str:
    match op, left, right:
        case "in", Var("principal"), _:
            return f"the person's role is {_roles(right, roles)}"
        case "in" | "==", Var("action"), _:
            return f"the action is {_either(right)}"
        case "in", GetAttr(Var("context"), "purpose"), _:
            return f"the purpose is {_either(right)}, or a narrower one"
        case "contains", SetExpr(), _:
            return f"{noun(right)} is {_either(left)}"
        case "contains", GetAttr(Var("resource"), "care_team"), Var("principal"):
            return "the person is on the patient's care team"
        case (
            "containsAny",
            GetAttr(Var("resource"), "departments"),
            GetAttr(Var("principal"), "departments"),
        ):
            return "the patient is treated in a department of the person's"
        case (
            "contains",
            GetAttr(Var("principal"), "departments"),
            GetAttr(Var("resource"), "department"),
        ):
            return "the row names a department of the person's"
        case (
            "contains",
            GetAttr(Var("principal"), "patients"),
            GetAttr(Var("resource"), "patient"),
        ):
            return "the record is about the patient of her assignment"
        case "==", GetAttr(Var("resource"), "author"), Var("principal"):
            return "the person wrote the record"
        case "in", _, _:
            return f"{noun(left)} is in {noun(right)}"
    if op in _RELATIONS:
        return f"{noun(left)} {_RELATIONS[op]} {noun(right)}"
    return f"`{expression_text(Binary(op, left, right))}`"  # type: ignore[arg-type]


def _negated(arg: Expr, roles: RoleBook | None) -> str:
    match arg:
        case HasAttr(Var("resource"), attr):
            return f"the record does not name {_noun_of('resource', attr)}"
        case Unary("isEmpty", inner):
            return f"{noun(inner)} are not empty"
        case Binary("==", left, right) if not isinstance(right, Var):
            return f"{noun(left)} is not {noun(right)}"
        case Binary("!=", left, right):
            return f"{noun(left)} is {noun(right)}"
        case Not(inner):
            return _words(inner, roles)
    return f"it is not so that {_grouped(arg, Or, roles)}"


def noun(expr: Expr) -> str:
    """The thing an expression stands for."""
    match expr:
        case Var(name):
            return _VARIABLES[name]
        case GetAttr(Var(name), attr):
            return _noun_of(name, attr)
        case Literal(value):
            return value_words(value)
        case SetExpr(items) if all(isinstance(item, Literal) for item in items):
            return _either(expr)
    return f"`{expression_text(expr)}`"


def _noun_of(variable: str, attr: str) -> str:
    found = _NOUNS.get((variable, attr))
    return found or f"{_VARIABLES[variable]}'s {attr.replace('_', ' ')}"


def _roles(expr: Expr, roles: RoleBook | None) -> str:
    names = [_role(name, roles) for name in _names(expr)]
    return _any_of(names) if names else f"`{expression_text(expr)}`"


def _role(name: str, roles: RoleBook | None) -> str:
    role = None if roles is None else roles.roles.get(name)
    return name if role is None else f"{name} ({role.title})"


def _either(expr: Expr) -> str:
    names = _names(expr)
    return _any_of(names) if names else noun(expr)


def _names(expr: Expr) -> list[str]:
    items = expr.items if isinstance(expr, SetExpr) else (expr,)
    if not all(isinstance(item, Literal) for item in items):
        return []
    return [value_words(item.value) for item in items if isinstance(item, Literal)]


def _any_of(names: Iterable[str]) -> str:
    found = list(names)
    if len(found) > 1:
        return f"{', '.join(found[:-1])} or {found[-1]}"
    return found[0] if found else "nothing"


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def value_words(value: Value | None) -> str:
    """A value as a person writes it; absent is said."""
    match value:
        case None:
            return "not there"
        case bool():
            return "yes" if value else "no"
        case EntityUid("Patient", _):
            return "a patient"
        case EntityUid(_, name):
            return "the person" if name == HERSELF else name
        case CedarSet():
            # A set has no order: the same one reads the same every time.
            return ", ".join(sorted(dict.fromkeys(value_words(v) for v in value))) or "none"
        case DateTime(ms):
            try:
                return (_EPOCH + timedelta(milliseconds=ms)).strftime("%Y-%m-%d %H:%M UTC")
            except OverflowError:
                return f"{ms} ms after 1970"
    return str(value)


# --- formulas: which records are meant ---------------------------------------------------------


def records_words(formula: Formula, herself: str | None = None) -> str:
    """Which records the formula means, to follow "records" or to stand alone.

    ``herself`` is the login name of the person it is about: "she" in the words.
    """
    if formula == ALWAYS:
        return "any record"
    if formula == NEVER:
        return "no record"
    return _formula(formula, frozenset({HERSELF, *([herself] if herself else ())}))


def _formula(formula: Formula, she: frozenset[str]) -> str:
    match formula:
        case All(parts):
            return " and ".join(
                f"({text})" if isinstance(part, Any) else text for part, text in _sorted(parts, she)
            )
        case Any(parts):
            return ", or ".join(text for _, text in _sorted(parts, she))
        case Present(attr, negated):
            return _present(attr, negated=negated)
        case IsOneOf(attr, values, negated):
            return _one_of(attr, values, she, negated=negated)
        case HasMember(attr, values, negated):
            return _member(attr, values, she, negated=negated)
        case Compares(attr, op, number):
            return f"{_noun_of('resource', attr)} {op} {number}"
    return str(formula)


def _sorted(parts: Iterable[Formula], she: frozenset[str]) -> list[tuple[Formula, str]]:
    return sorted(((part, _formula(part, she)) for part in parts), key=lambda pair: pair[1])


def _present(attr: str, *, negated: bool) -> str:
    if attr == "patient":
        return "about no patient" if negated else "about a patient"
    return f"that name {'no' if negated else 'a'} {attr.replace('_', ' ')}"


def _ids(values: Iterable[Scalar], she: frozenset[str]) -> str:
    return _any_of(
        sorted(
            {"her" if isinstance(v, EntityUid) and v.id in she else value_words(v) for v in values}
        )
    )


def _one_of(attr: str, values: frozenset[Scalar], she: frozenset[str], *, negated: bool) -> str:
    told = _ids(values, she)
    match attr:
        case "author":
            return f"written by somebody else than {told}" if negated else f"written by {told}"
        case "department":
            return f"that name {'another department than' if negated else 'the department'} {told}"
        case "patient":
            about = "other patients than that of" if negated else "the patient of"
            return f"about {about} her assignment"
    return f"whose {attr.replace('_', ' ')} is {'not ' if negated else ''}{told}"


def _member(attr: str, values: frozenset[Scalar], she: frozenset[str], *, negated: bool) -> str:
    told = _ids(values, she)
    match attr:
        case "care_team":
            is_ = "is not" if negated else "is"
            who = "she" if told == "her" else told
            return f"of patients on whose care team {who} {is_}"
        case "departments":
            return f"of patients {'not ' if negated else ''}treated in {told}"
        case "age_bands":
            return f"of patients whose age band is {'not ' if negated else ''}{told}"
    return f"whose {attr.replace('_', ' ')} {'do not ' if negated else ''}include {told}"
