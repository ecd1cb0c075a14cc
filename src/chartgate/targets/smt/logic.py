"""Formulas in which everything already known has been worked out.

A truth value is a Python ``bool`` where it is known and a solver term otherwise; the same for
whole numbers. Rule kept: an operation on known values never makes a term, so that a question which
the policies answer by themselves needs no solver.
"""

from collections.abc import Iterable
from typing import TypeAlias

import z3

Truth: TypeAlias = bool | z3.BoolRef
Number: TypeAlias = int | z3.ArithRef


def both(left: Truth, right: Truth) -> Truth:
    """``left`` and ``right``."""
    if isinstance(left, bool):
        return right if left else False
    if isinstance(right, bool):
        return left if right else False
    return left if left.eq(right) else z3.And(left, right)


def either(left: Truth, right: Truth) -> Truth:
    """``left`` or ``right``."""
    if isinstance(left, bool):
        return True if left else right
    if isinstance(right, bool):
        return True if right else left
    return left if left.eq(right) else z3.Or(left, right)


def negated(truth: Truth) -> Truth:
    """Not ``truth``."""
    return not truth if isinstance(truth, bool) else z3.Not(truth)


def implies(left: Truth, right: Truth) -> Truth:
    """``right``, wherever ``left``."""
    return either(negated(left), right)


def all_of(truths: Iterable[Truth]) -> Truth:
    """Every one of them; of none: true."""
    parts = _open(truths, absorbing=False)
    if parts is None:
        return False
    return z3.And(*parts) if len(parts) > 1 else next(iter(parts), True)


def any_of(truths: Iterable[Truth]) -> Truth:
    """Some of them; of none: false."""
    parts = _open(truths, absorbing=True)
    if parts is None:
        return True
    return z3.Or(*parts) if len(parts) > 1 else next(iter(parts), False)


def _open(truths: Iterable[Truth], *, absorbing: bool) -> list[z3.BoolRef] | None:
    """What is not known, each once; None when one of them settles it."""
    parts: dict[int, z3.BoolRef] = {}
    for truth in truths:
        if isinstance(truth, bool):
            if truth is absorbing:
                return None
        else:
            parts.setdefault(truth.get_id(), truth)
    return list(parts.values())


def chosen(test: Truth, then: Truth, otherwise: Truth) -> Truth:
    """``then`` where ``test``, else ``otherwise``."""
    if isinstance(test, bool):
        return then if test else otherwise
    return both(implies(test, then), either(test, otherwise))


def agree(left: Truth, right: Truth) -> Truth:
    """Whether two truth values are the same."""
    if isinstance(left, bool):
        return right if left else negated(right)
    if isinstance(right, bool):
        return left if right else negated(left)
    return True if left.eq(right) else left == right


def same_number(left: Number, right: Number) -> Truth:
    """Whether two numbers are the same."""
    if isinstance(left, int) and isinstance(right, int):
        return left == right
    if isinstance(left, z3.ArithRef) and isinstance(right, z3.ArithRef) and left.eq(right):
        return True
    return _truth(left == right)


def chosen_number(test: Truth, then: Number, otherwise: Number) -> Number:
    """``then`` where ``test``, else ``otherwise``."""
    if isinstance(test, bool):
        return then if test else otherwise
    found: Number = z3.If(test, then, otherwise)
    return found


def less(left: Number, right: Number) -> Truth:
    """``left < right``."""
    return (
        left < right if isinstance(left, int) and isinstance(right, int) else _truth(left < right)
    )


def term(truth: Truth) -> z3.BoolRef:
    """As a solver term."""
    return z3.BoolVal(truth) if isinstance(truth, bool) else truth


def _truth(found: object) -> Truth:
    assert isinstance(found, bool | z3.BoolRef)
    return found
