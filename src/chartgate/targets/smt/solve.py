"""Asking the solver, and taking its word only as far as it goes.

Rule kept: ``unsat`` is a proof; ``sat`` is a model that must still be replayed; anything else,
a timeout included, is *unknown* and says why.
"""

from dataclasses import dataclass

import z3

from chartgate.targets.smt.logic import Truth
from chartgate.targets.smt.universe import Universe


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is no such request: proved."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The solver did not decide; ``why`` says what stood in the way."""

    why: str


def satisfiable(
    universe: Universe, formula: Truth, *, timeout_ms: int
) -> "z3.ModelRef | Nothing | Unknown":
    """A model in which the formula is true, if there is one."""
    if formula is False:
        return Nothing()
    solver = z3.Solver()
    solver.set("timeout", timeout_ms)
    solver.set("random_seed", 0)
    # The formula first: to spell out what is universal needs all that it mentions.
    solver.add(formula)
    solver.add(*universe.closure())
    answer = solver.check()
    if answer == z3.unsat:
        return Nothing()
    if answer == z3.sat:
        return solver.model()
    reason = solver.reason_unknown()
    if reason in {"timeout", "canceled"}:
        return Unknown(f"not decided within {timeout_ms / 1000:g} s")
    return Unknown(f"the solver gave up: {reason}")
