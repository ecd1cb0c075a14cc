"""Partial evaluation: a policy's condition with everything known but the row.

Principal, action, context and label are known; what the row says is not, and both may be mixed in
one expression. The outcome is a pair of formulas over the row: when the condition is *true* and
when it is *false*. A row for which neither holds is one where evaluation errs, as
``chartgate.cedar.evaluate`` would: the same order, the same short circuits. Permits ask for
*true*; forbids must be *false*, so that a forbid which errs on a row excludes it (the documented
hardening of Cedar's "skip on error").
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

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
    Not,
    Or,
    Unary,
)
from chartgate.cedar.evaluate import Env, EvaluationError, evaluate
from chartgate.cedar.extensions import DAY, HOUR, MINUTE, SECOND
from chartgate.cedar.values import Value
from chartgate.targets.admissible import ARITHMETIC, DURATION_UNITS, depends_on_row, is_resource
from chartgate.targets.formula import (
    ALWAYS,
    NEVER,
    Formula,
    Present,
    StepOp,
    conjunction,
    disjunction,
)
from chartgate.targets.row_terms import (
    DECIMAL_ORDER,
    condition,
    guarded,
    is_empty,
    is_type,
    like,
    negated,
    relation,
    stepped,
)
from chartgate.targets.row_values import (
    ERROR,
    FALSE,
    TRUE,
    Cell,
    Constant,
    Members,
    Outcome,
    RowShape,
    Term,
    kind_of,
)

__all__ = ["ERROR", "FALSE", "TRUE", "Known", "Outcome", "RowShape", "specialise"]

_UNITS = {
    "toMilliseconds": 1, "toSeconds": SECOND, "toMinutes": MINUTE, "toHours": HOUR, "toDays": DAY,
}  # fmt: skip
_Case: TypeAlias = tuple[Formula, Term]
"""Where an operand is this term; where no case holds, it errs."""


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known when a statement is decided.

    ``env.resource`` is an entity that carries the label and nothing else.
    """

    env: Env
    shape: RowShape


def specialise(expr: Expr, known: Known) -> Outcome:
    """The outcome of a condition over rows. Only admissible expressions may come here."""
    match expr:
        case And(left, right):
            return _both(specialise(left, known), lambda: specialise(right, known))
        case Or(left, right):
            return negated(
                _both(negated(specialise(left, known)), lambda: negated(specialise(right, known)))
            )
        case Not(arg):
            return negated(specialise(arg, known))
        case _ if not depends_on_row(expr):
            value = _value(expr, known)
            return ERROR if value is None else condition(Constant(value))
        case If(test, then, otherwise):
            return _chosen(
                specialise(test, known),
                lambda: specialise(then, known),
                lambda: specialise(otherwise, known),
            )
        case HasAttr(base, attribute) if is_resource(base):
            return _has(attribute, known.shape)
        case Is(base, type_name, None) if is_resource(base):
            return TRUE if known.env.resource.type == type_name else FALSE
        case Is(arg, type_name, inside):
            named = guarded((g, is_type(term, type_name)) for g, term in _cases(arg, known))
            if inside is None:
                return named
            return _both(named, lambda: _relation("in", arg, inside, known))
        case Like(arg, pattern):
            return guarded((g, like(term, pattern)) for g, term in _cases(arg, known))
        case Unary("isEmpty", arg):
            return guarded((g, is_empty(term)) for g, term in _cases(arg, known))
        case Binary(op, left, right) if op not in ARITHMETIC:
            return _relation(op, left, right, known)
        case Call(fn, (left, right)) if fn in DECIMAL_ORDER:
            return _relation(fn, left, right, known)
        case GetAttr() | Binary() | Call() | Unary():
            return guarded((g, condition(term)) for g, term in _cases(expr, known))
    raise AssertionError("not admissible; refused when the policies were loaded")


def _both(left: Outcome, right: Callable[[], Outcome]) -> Outcome:
    """``left && right``: the right side counts only where the left is true."""
    if left in (FALSE, ERROR):
        return left
    second = right()
    if left == TRUE or second == TRUE:
        return second if left == TRUE else left
    return Outcome(
        conjunction((left.true, second.true)),
        disjunction((left.false, conjunction((left.true, second.false)))),
    )


def _chosen(
    test: Outcome, then: Callable[[], Outcome], otherwise: Callable[[], Outcome]
) -> Outcome:
    """``if test then … else …``; a branch counts only where the test chooses it."""
    if test.true == NEVER == test.false:
        return ERROR
    branches = [(g, b()) for g, b in ((test.true, then), (test.false, otherwise)) if g != NEVER]
    return guarded(branches)


def _value(expr: Expr, known: Known) -> Value | None:
    """The value of an expression that does not depend on the row; ``None`` when it errs."""
    try:
        return evaluate(expr, known.env)
    except EvaluationError:
        return None


def _has(attribute: str, shape: RowShape) -> Outcome:
    if attribute in shape.declared_sets or attribute == "category":
        return TRUE
    if attribute not in shape.scalars:
        return FALSE
    return Outcome(Present(attribute), Present(attribute, negated=True))


def _relation(op: str, left: Expr, right: Expr, known: Known) -> Outcome:
    # An operand without a case errs on every row, and so does the whole, whichever side it is on.
    return guarded(
        (conjunction((g, h)), relation(op, first, second, known.shape, known.env.entities))
        for g, first in _cases(left, known)
        for h, second in _cases(right, known)
    )


def _cases(expr: Expr, known: Known) -> tuple[_Case, ...]:
    """The terms that an operand can be, with the rows on which it is that."""
    if not depends_on_row(expr):
        value = _value(expr, known)
        return () if value is None else ((ALWAYS, Constant(value)),)
    match expr:
        case GetAttr(base, attribute) if is_resource(base):
            return _attribute(attribute, known.shape)
        case If(test, then, otherwise):
            chosen = specialise(test, known)
            return tuple(
                (conjunction((guard, inner)), term)
                for guard, branch in ((chosen.true, then), (chosen.false, otherwise))
                if guard != NEVER
                for inner, term in _cases(branch, known)
            )
        case Unary("neg", arg):
            return _steps("-", ((ALWAYS, Constant(0)),), _cases(arg, known), _LONGS)
        case Binary(op, left, right) if op in ARITHMETIC:
            return _steps(cast(StepOp, op), _cases(left, known), _cases(right, known), _LONGS)
        case Call("offset", (left, right)):
            return _steps("+", _cases(left, known), _cases(right, known), _OFFSET)
        case Call("durationSince", (left, right)):
            return _steps("-", _cases(left, known), _cases(right, known), _SINCE)
        case Call("toDate", (arg,)):
            return _steps("day", _cases(arg, known), _DAY, _TO_DATE)
        case Call("toTime", (arg,)):
            return _steps("rest of day", _cases(arg, known), _DAY, _TO_TIME)
        case Call(fn, (arg,)) if fn in DURATION_UNITS:
            unit: tuple[_Case, ...] = ((ALWAYS, Constant(_UNITS[fn])),)
            return _steps("quotient", _cases(arg, known), unit, _TO_LONG)
    outcome = specialise(expr, known)
    return tuple(
        (guard, Constant(value))
        for guard, value in ((outcome.true, True), (outcome.false, False))
        if guard != NEVER
    )


_DAY: tuple[_Case, ...] = ((ALWAYS, Constant(DAY)),)
# The kinds on both sides, and that of the result.
_LONGS = ("Long", "Long", "Long")
_OFFSET = ("datetime", "duration", "datetime")
_SINCE = ("datetime", "datetime", "duration")
_TO_DATE = ("datetime", "Long", "datetime")
_TO_TIME = ("datetime", "Long", "duration")
_TO_LONG = ("duration", "Long", "Long")


def _attribute(attribute: str, shape: RowShape) -> tuple[_Case, ...]:
    kind = shape.kinds.get(attribute, "")
    if attribute in shape.declared_sets:
        return ((ALWAYS, Members(attribute, kind, empty=attribute not in shape.sets)),)
    if attribute not in shape.scalars:
        return ()
    return ((ALWAYS, Cell(attribute, kind)),)


def _steps(
    op: StepOp,
    lefts: tuple[_Case, ...],
    rights: tuple[_Case, ...],
    kinds: tuple[str, str, str],
) -> tuple[_Case, ...]:
    found: list[_Case] = []
    for g, left in lefts:
        for h, right in rights:
            if (kind_of(left), kind_of(right)) == kinds[:2]:
                term = stepped(op, left, right, kinds[2])
                if term is not None:
                    found.append((conjunction((g, h)), term))
    return tuple(found)
