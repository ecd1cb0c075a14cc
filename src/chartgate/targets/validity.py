"""Until when a decision that read the clock still holds.

A comparison of ``context.now`` with a known instant changes its answer once, at that instant.
Any other use of the clock is opaque, and so is the context taken as a whole: such a decision is
never kept. What stands behind ``context has x &&`` is not read where nobody says x.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from chartgate.cedar.ast import And, Binary, Expr, GetAttr, HasAttr, Var
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
    if isinstance(expr, And):
        yield from _instants(expr.left, env)
        if not _is_unsaid(expr.left, env):
            yield from _instants(expr.right, env)
        return
    if isinstance(expr, Binary) and expr.op in _ORDERING:
        for clock, other in ((expr.left, expr.right), (expr.right, expr.left)):
            if _is_now(clock) and not _reads_clock(other):
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


def _is_unsaid(expr: Expr, env: Env) -> bool:
    """Whether a conjunction is false, or fails, because of a circumstance that is not there."""
    if isinstance(expr, And):
        return _is_unsaid(expr.left, env) or _is_unsaid(expr.right, env)
    return isinstance(expr, HasAttr) and _is_context(expr.base) and expr.attr not in env.context


def _reads_clock(expr: Expr) -> bool:
    if _is_now(expr) or _is_context(expr):
        return True
    if isinstance(expr, GetAttr | HasAttr) and _is_context(expr.base):
        return False
    return any(_reads_clock(child) for child in children(expr))


def _mentions(expr: Expr, variable: str) -> bool:
    if isinstance(expr, Var):
        return expr.name == variable
    return any(_mentions(child, variable) for child in children(expr))


def _is_context(expr: Expr) -> bool:
    return isinstance(expr, Var) and expr.name == "context"


def _is_now(expr: Expr) -> bool:
    return isinstance(expr, GetAttr) and expr.attr == "now" and _is_context(expr.base)
