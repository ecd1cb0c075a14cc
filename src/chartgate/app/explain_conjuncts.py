"""A policy taken apart: each single thing it asks, whether that is so, and the values it looked at.

The rules kept: the conjuncts in their order mean what the whole condition means, errors included
(Cedar evaluates ``principal && (action && (resource && clauses))`` from the left); values come from
the request alone, and those of attributes that the asker did not give herself are not shown.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from chartgate.cedar.ast import And, Expr, GetAttr, Literal, Not, Or, Policy, Var
from chartgate.cedar.evaluate import Env, EvaluationError, evaluate
from chartgate.cedar.values import Value
from chartgate.targets.admissible import children


class Verdict(StrEnum):
    """Whether a conjunct is so."""

    HOLDS = "holds"
    FAILS = "fails"
    ERRS = "cannot be told"
    """Its evaluation fails: in a permit that counts as failing, in a forbid as holding."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One attribute that a conjunct looked at; ``value`` is None where it is absent."""

    expr: Expr
    value: Value | None
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Conjunct:
    """One thing that a policy asks, and what came of it."""

    expr: Expr
    verdict: Verdict
    observed: tuple[Observed, ...]
    scope: bool
    """Written in the policy's head: who, which action, which resource."""


def conjuncts_of(policy: Policy) -> tuple[tuple[Expr, bool], ...]:
    """What the policy asks, one by one and in order; with each, whether its head says it."""
    head = (
        (policy.principal.expression("principal"), True),
        (policy.action.expression("action"), True),
        (policy.resource.expression("resource"), True),
    )
    clauses = ((part, False) for clause in policy.conditions for part in _flat(clause.expression()))
    return tuple((e, scope) for e, scope in (*head, *clauses) if e != Literal(True))


def _flat(expr: Expr) -> Iterator[Expr]:
    match expr:
        case And(left, right):
            yield from _flat(left)
            yield from _flat(right)
        case Not(Or(left, right)):
            # The same order, the same errors: `unless { a || b }` asks that neither is so.
            yield from _flat(Not(left))
            yield from _flat(Not(right))
        case Not(Not(arg)):
            yield from _flat(arg)
        case _:
            yield expr


def judged(policy: Policy, env: Env, hidden: frozenset[str] = frozenset()) -> tuple[Conjunct, ...]:
    """Every conjunct with its verdict; ``hidden`` record attributes are told without values."""
    return tuple(
        Conjunct(expr, verdict_of(expr, env), tuple(_observed(expr, env, hidden)), scope)
        for expr, scope in conjuncts_of(policy)
    )


def verdict_of(expr: Expr, env: Env) -> Verdict:
    """Whether a condition is so."""
    try:
        return Verdict.HOLDS if evaluate(expr, env) is True else Verdict.FAILS
    except EvaluationError:
        return Verdict.ERRS


def failing(conjuncts: Iterable[Conjunct]) -> tuple[Conjunct, ...]:
    """Those that keep a permit from holding."""
    return tuple(c for c in conjuncts if c.verdict is not Verdict.HOLDS)


def leaves(expr: Expr) -> Iterator[GetAttr]:
    """The attribute paths that an expression reads, outermost first, each once."""
    seen: set[GetAttr] = set()
    for path in _paths(expr):
        if path not in seen:
            seen.add(path)
            yield path


def _paths(expr: Expr) -> Iterator[GetAttr]:
    if isinstance(expr, GetAttr) and _rooted(expr):
        yield expr
        return
    for child in children(expr):
        yield from _paths(child)


def _rooted(expr: Expr) -> bool:
    while isinstance(expr, GetAttr):
        expr = expr.base
    return isinstance(expr, Var)


def _observed(expr: Expr, env: Env, hidden: frozenset[str]) -> Iterator[Observed]:
    for path in leaves(expr):
        try:
            value: Value | None = evaluate(path, env)
        except EvaluationError:
            value = None
        of_record = isinstance(path.base, Var) and path.base.name == "resource"
        yield Observed(path, value, shown=not (of_record and path.attr in hidden))
