"""Until when a decision that read the clock still holds.

A comparison of ``context.now`` with a known instant changes its answer once, at that instant.
Any other use of the clock is opaque, and so is the context taken as a whole: such a decision is
never kept.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from chartgate.cedar.ast import Binary, Expr, GetAttr, HasAttr, Var
from chartgate.cedar.evaluate import Env, EvaluationError, evaluate
from chartgate.cedar.values import DateTime
from chartgate.targets.admissible import children

_ORDERING: Final = frozenset({"<", "<=", ">", ">="})
OPAQUE: Final = 0
"""Milliseconds: "held until the epoch", which is to say not at all."""


def valid_until(conditions: Iterable[Expr], env: Env, *, now_ms: int) -> int | None:
    """The first instant (ms since the epoch) at which an outcome may change; None = no bound."""
    bounds = [ms for c in conditions for ms in _instants(c, env) if ms > now_ms or ms == OPAQUE]
    return min(bounds, default=None)


def _instants(expr: Expr, env: Env) -> Iterator[int]:
    if _is_now(expr) or _is_context(expr):
        yield OPAQUE
        return
    if isinstance(expr, GetAttr | HasAttr) and _is_context(expr.base):
        return
    if isinstance(expr, Binary) and expr.op in _ORDERING:
        for clock, other in ((expr.left, expr.right), (expr.right, expr.left)):
            if _is_now(clock) and not _mentions(other, "context"):
                if _mentions(other, "resource") or _mentions(other, "action"):
                    break
                try:
                    instant = evaluate(other, env)
                except EvaluationError:
                    return
                if isinstance(instant, DateTime):
                    # '<=' and '>' turn one millisecond after the instant; either way it is over.
                    yield instant.ms
                    yield instant.ms + 1
                return
    for child in children(expr):
        yield from _instants(child, env)


def _mentions(expr: Expr, variable: str) -> bool:
    if isinstance(expr, Var):
        return expr.name == variable
    return any(_mentions(child, variable) for child in children(expr))


def _is_context(expr: Expr) -> bool:
    return isinstance(expr, Var) and expr.name == "context"


def _is_now(expr: Expr) -> bool:
    return isinstance(expr, GetAttr) and expr.attr == "now" and _is_context(expr.base)
