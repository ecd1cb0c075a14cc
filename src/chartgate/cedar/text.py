"""A policy back to Cedar text (Cedar "Grammar"): what generated policies are written with.

The rule kept: reading the text again gives the very same tree. Brackets stand only where the
grammar needs them, so that a long chain stays within the limits of the reader. Names and strings
that could not stand for themselves are quoted and escaped, so nothing in data can end a string.
"""

import re
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
    RecordExpr,
    Scope,
    SetExpr,
    Slot,
    Unary,
    Var,
    Wildcard,
)
from chartgate.cedar.extensions import CONSTRUCTORS
from chartgate.model.principal import EntityUid

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z_0-9]*\Z")
_RESERVED: Final = frozenset(
    {"true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"}
)
# How tightly a form binds; an operand of a looser form stands in brackets.
_IF, _OR, _AND, _RELATION, _SUM, _PRODUCT, _UNARY, _MEMBER = range(8)
_METHODS: Final = frozenset({"contains", "containsAll", "containsAny", "hasTag", "getTag"})
# The grammar takes at most four ``!`` or ``-`` in a row.
_IN_A_ROW: Final = 4


def quoted(text: str) -> str:
    """A Cedar string literal."""
    return f'"{_escaped(text)}"'


def uid_text(uid: EntityUid) -> str:
    """An entity as Cedar writes it, whatever its id holds."""
    return f"{uid.type}::{quoted(uid.id)}"


def expression_text(expr: Expr) -> str:
    """The expression as Cedar text on one line."""
    return _write(expr, _IF)


def policy_text(policy: Policy) -> str:
    """The policy as Cedar text: annotations, scope, one line for each clause."""
    notes = [f"@{name}({quoted(value)})" for name, value in policy.annotations]
    scopes = ", ".join(
        _scope(name, scope)
        for name, scope in (
            ("principal", policy.principal),
            ("action", policy.action),
            ("resource", policy.resource),
        )
    )
    clauses = [f"{c.kind} {{ {expression_text(c.body)} }}" for c in policy.conditions]
    return "\n".join((*notes, f"{policy.effect} ({scopes})", *clauses)) + ";"


def _escaped(text: str) -> str:
    marks = text.replace("\\", "\\\\").replace('"', '\\"')
    return "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in marks)


def _scope(name: str, scope: Scope) -> str:
    targets = [e.name if isinstance(e, Slot) else uid_text(e) for e in scope.entities]
    if scope.op == "all":
        return name
    if scope.op == "==":
        return f"{name} == {targets[0]}"
    if scope.op == "in":
        listed = ", ".join(targets)
        return f"{name} in {listed}" if len(targets) == 1 else f"{name} in [{listed}]"
    return f"{name} is {scope.type}" + (f" in {targets[0]}" if scope.op == "is in" else "")


def _write(expr: Expr, needed: int) -> str:
    text, binds = _form(expr)
    return text if binds >= needed else f"({text})"


def _form(expr: Expr) -> tuple[str, int]:
    match expr:
        case Literal(value):
            return _literal(value)
        case Var(name) | Slot(name):
            return name, _MEMBER
        case If(test, then, otherwise):
            parts = (_write(part, _IF) for part in (test, then, otherwise))
            return "if {} then {} else {}".format(*parts), _IF
        case Or(left, right):
            return f"{_write(left, _OR)} || {_write(right, _AND)}", _OR
        case And(left, right):
            return f"{_write(left, _AND)} && {_write(right, _RELATION)}", _AND
        case Not() | Unary("neg"):
            return _prefixed(expr), _UNARY
        case Unary(_, arg):
            return f"{_write(arg, _MEMBER)}.isEmpty()", _MEMBER
        case Binary():
            return _binary(expr)
        case HasAttr(base, attr):
            return f"{_write(base, _SUM)} has {_name(attr)}", _RELATION
        case Like(arg, pattern):
            chunks = (
                "*" if isinstance(part, Wildcard) else _escaped(part).replace("*", "\\*")
                for part in pattern
            )
            return f'{_write(arg, _SUM)} like "{"".join(chunks)}"', _RELATION
        case Is(arg, type_, inside):
            within = "" if inside is None else f" in {_write(inside, _SUM)}"
            return f"{_write(arg, _SUM)} is {type_}{within}", _RELATION
        case GetAttr(base, attr):
            named = f".{attr}" if _plain(attr) else f"[{quoted(attr)}]"
            return f"{_write(base, _MEMBER)}{named}", _MEMBER
        case SetExpr(items):
            return f"[{', '.join(_write(item, _IF) for item in items)}]", _MEMBER
        case RecordExpr(members):
            written = (f"{_name(name)}: {_write(item, _IF)}" for name, item in members)
            return "{" + ", ".join(written) + "}", _MEMBER
        case Call(fn, args) if fn in CONSTRUCTORS or not args:
            return f"{fn}({', '.join(_write(arg, _IF) for arg in args)})", _MEMBER
        case Call(fn, args):
            rest = ", ".join(_write(arg, _IF) for arg in args[1:])
            return f"{_write(args[0], _MEMBER)}.{fn}({rest})", _MEMBER
    raise TypeError("not an expression")


def _literal(value: object) -> tuple[str, int]:
    if isinstance(value, bool):
        return ("true" if value else "false"), _MEMBER
    if isinstance(value, int):
        # A negative number is a number only where nothing is taken of it: -5.a is -(5.a).
        return str(value), _MEMBER if value >= 0 else _UNARY
    if isinstance(value, str):
        return quoted(value), _MEMBER
    if isinstance(value, EntityUid):
        return uid_text(value), _MEMBER
    raise TypeError("not a literal that a policy can hold")


def _binary(expr: Binary) -> tuple[str, int]:
    op, left, right = expr.op, expr.left, expr.right
    if op in _METHODS:
        return f"{_write(left, _MEMBER)}.{op}({_write(right, _IF)})", _MEMBER
    if op in ("+", "-"):
        return f"{_write(left, _SUM)} {op} {_write(right, _PRODUCT)}", _SUM
    if op == "*":
        return f"{_write(left, _PRODUCT)} * {_write(right, _UNARY)}", _PRODUCT
    return f"{_write(left, _SUM)} {op} {_write(right, _SUM)}", _RELATION


def _prefixed(expr: Not | Unary) -> str:
    mark = "!" if isinstance(expr, Not) else "-"
    marks, arg = mark, expr.arg
    while type(arg) is type(expr) and len(marks) < _IN_A_ROW:
        if isinstance(arg, Unary) and arg.op != "neg":
            break
        assert isinstance(arg, Not | Unary)
        marks, arg = marks + mark, arg.arg
    # -5 is a number; the negation of the number 5 is -(5).
    if isinstance(expr, Unary) and isinstance(arg, Literal):
        return f"{marks}({_write(arg, _IF)})"
    return marks + _write(arg, _MEMBER)


def _plain(name: str) -> bool:
    return _NAME.match(name) is not None and name not in _RESERVED


def _name(name: str) -> str:
    return name if _plain(name) else quoted(name)
