"""An expression with other parts: the same construct, as ``admissible.children`` took it apart."""

from collections.abc import Sequence
from typing import assert_never

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


def rebuilt(expr: Expr, parts: Sequence[Expr]) -> Expr:
    """The construct with these parts in the place of its own, in the order of ``children``."""
    match expr:
        case Literal() | Var() | Slot():  # pragma: no cover - these have no parts
            return expr
        case And():
            return And(*parts)
        case Or():
            return Or(*parts)
        case Not():
            return Not(*parts)
        case If():
            return If(*parts)
        case Binary(op, _, _):
            return Binary(op, *parts)
        case Unary(op, _):
            return Unary(op, *parts)
        case GetAttr(_, attr):
            return GetAttr(parts[0], attr)
        case HasAttr(_, attr):
            return HasAttr(parts[0], attr)
        case Like(_, pattern):
            return Like(parts[0], pattern)
        case Is(_, type_, _):
            return Is(parts[0], type_, *parts[1:])
        case SetExpr():
            return SetExpr(tuple(parts))
        case RecordExpr(pairs):
            return RecordExpr(tuple((n, part) for (n, _), part in zip(pairs, parts, strict=True)))
        case Call(fn, _):
            return Call(fn, tuple(parts))
    assert_never(expr)  # pragma: no cover - every node has its case above
