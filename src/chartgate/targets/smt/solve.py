"""Asking the solver, and taking its word only as far as it goes.

Rule kept: ``unsat`` is a proof; ``sat`` is a model that must still be replayed; anything else,
a timeout included, is *unknown* and says why.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import z3

from chartgate.targets.smt.logic import Truth, term
from chartgate.targets.smt.universe import Universe

Model: TypeAlias = z3.ModelRef


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is no such request: proved."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """It was not decided; ``why`` says what stood in the way."""

    why: str


class Session:
    """Questions about one universe. What is learned for one serves the next."""

    def __init__(self, universe: Universe) -> None:
        self._universe: Final = universe
        self._solver: Final = z3.Solver()
        self._solver.set("random_seed", 0)
        self._told: Final[set[int]] = set()
        self._kept: Final[list[z3.BoolRef]] = []
        self.asked = 0
        """How many questions went to the solver."""

    def satisfiable(self, formula: Truth, *, timeout_ms: int) -> Model | Nothing | Unknown:
        """A model in which the formula is true, if there is one."""
        if formula is False:
            return Nothing()
        self.asked += 1
        solver = self._solver
        solver.set("timeout", timeout_ms)
        # The facts define what the formula mentions, and bound nothing else: they may stay.
        for fact in self._universe.closure():
            if fact.get_id() not in self._told:
                self._told.add(fact.get_id())
                self._kept.append(fact)
                solver.add(fact)
        solver.push()
        try:
            solver.add(term(formula))
            answer = solver.check()
            if answer == z3.unsat:
                return Nothing()
            if answer == z3.sat:
                return solver.model()
            reason = solver.reason_unknown()
        finally:
            solver.pop()
        if reason in {"timeout", "canceled"}:
            return Unknown(f"not decided within {timeout_ms / 1000:g} s")
        return Unknown(f"the solver gave up: {reason}")


def satisfiable(
    universe: Universe, formula: Truth, *, timeout_ms: int
) -> Model | Nothing | Unknown:
    """The same for a single question."""
    return Session(universe).satisfiable(formula, timeout_ms=timeout_ms)
