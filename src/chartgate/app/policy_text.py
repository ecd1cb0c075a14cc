"""An expression as Cedar text again: what is shown beside the plain words.

The rule kept: the text parses back to the same tree (Cedar policy language 4.5, "Grammar"), so
that what a person reads is what was decided. Parentheses stand wherever leaving them out would
change the tree.
"""

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
    RecordExpr,
    SetExpr,
    Slot,
    Unary,
    Var,
    Wildcard,
)
from chartgate.cedar.values import Value
from chartgate.model.principal import EntityUid

# How tightly each construct binds; a looser one inside a tighter one is put in parentheses.
_IF, _OR, _AND, _RELATION, _SUM, _PRODUCT, _UNARY, _MEMBER = range(8)
_METHODS: Final = frozenset({"contains", "containsAll", "containsAny", "hasTag", "getTag"})
_ARITHMETIC: Final = {"+": _SUM, "-": _SUM, "*": _PRODUCT}
_CONSTRUCTORS: Final = frozenset({"ip", "decimal", "datetime", "duration"})


def cedar_text(expr: Expr) -> str:
    """The expression as Cedar writes it, on one line."""
    return _text(expr, _IF)


def quoted(text: str) -> str:
    """A Cedar string literal."""
    return f'"{"".join(_escaped(char) for char in text)}"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return char if char.isprintable() else f"\\u{{{ord(char):x}}}"


_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}


def _text(expr: Expr, outer: int) -> str:
    text, own = _written(expr)
    return f"({text})" if own < outer else text


def _written(expr: Expr) -> tuple[str, int]:
    match expr:
        case Literal(value):
            return _literal(value)
        case Var(name) | Slot(name):
            return name, _MEMBER
        case And(left, right):
            return f"{_text(left, _AND)} && {_text(right, _RELATION)}", _AND
        case Or(left, right):
            return f"{_text(left, _OR)} || {_text(right, _AND)}", _OR
        case Not(arg):
            return f"!{_text(arg, _MEMBER)}", _UNARY
        case If(test, then, otherwise):
            parts = (_text(part, _OR) for part in (test, then, otherwise))
            return "if {} then {} else {}".format(*parts), _IF
        case Unary("isEmpty", arg):
            return f"{_text(arg, _MEMBER)}.isEmpty()", _MEMBER
        case Unary(_, arg):
            return f"-{_text(arg, _MEMBER)}", _UNARY
        case Binary(op, left, right):
            return _binary(op, left, right)
        case GetAttr(base, attr):
            member = f".{attr}" if _is_name(attr) else f"[{quoted(attr)}]"
            return f"{_text(base, _MEMBER)}{member}", _MEMBER
        case HasAttr(base, attr):
            member = attr if _is_name(attr) else quoted(attr)
            return f"{_text(base, _SUM)} has {member}", _RELATION
        case Like(arg, pattern):
            chunks = (
                "*" if isinstance(part, Wildcard) else quoted(part)[1:-1].replace("*", "\\*")
                for part in pattern
            )
            return f'{_text(arg, _SUM)} like "{"".join(chunks)}"', _RELATION
        case Is(arg, type_, inside):
            below = "" if inside is None else f" in {_text(inside, _SUM)}"
            return f"{_text(arg, _SUM)} is {type_}{below}", _RELATION
        case SetExpr(items):
            return f"[{', '.join(map(cedar_text, items))}]", _MEMBER
        case RecordExpr(members):
            pairs = (f"{quoted(name)}: {cedar_text(item)}" for name, item in members)
            return f"{{{', '.join(pairs)}}}", _MEMBER
        case Call(fn, args):
            return _call(fn, args), _MEMBER
    raise TypeError("not an expression")


def _binary(op: str, left: Expr, right: Expr) -> tuple[str, int]:
    if op in _METHODS:
        return f"{_text(left, _MEMBER)}.{op}({cedar_text(right)})", _MEMBER
    own = _ARITHMETIC.get(op, _RELATION)
    # Relations do not chain; sums and products group to the left.
    outer = _SUM if own == _RELATION else own
    return f"{_text(left, outer)} {op} {_text(right, own + 1)}", own


def _call(fn: str, args: tuple[Expr, ...]) -> str:
    if fn in _CONSTRUCTORS:
        return f"{fn}({', '.join(map(cedar_text, args))})"
    receiver, *rest = args
    return f"{_text(receiver, _MEMBER)}.{fn}({', '.join(map(cedar_text, rest))})"


def _literal(value: Value) -> tuple[str, int]:
    if isinstance(value, bool):
        return str(value).lower(), _MEMBER
    if isinstance(value, EntityUid):
        return f"{value.type}::{quoted(value.id)}", _MEMBER
    if isinstance(value, int):
        return str(value), _MEMBER if value >= 0 else _UNARY
    if isinstance(value, str):
        return quoted(value), _MEMBER
    raise TypeError("no such literal in a policy")


def _is_name(attr: str) -> bool:
    return attr.isascii() and attr.isidentifier() and attr not in _RESERVED


_RESERVED: Final = frozenset(
    {"true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"}
)
