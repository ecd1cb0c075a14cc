"""The plainest formula for the same records: what a condition is told in.

The rule kept: nothing is lost or added; the plainer formula holds for exactly the same rows, which
is checked cell by cell (each attribute is absent, one of the values mentioned, or another). What has
too many cells, or speaks of more than names, stays as it is.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import product
from typing import Final

from chartgate.targets.formula import (
    ALWAYS,
    NEVER,
    All,
    Any,
    Formula,
    HasMember,
    IsOneOf,
    Present,
    Scalar,
    conjunction,
    disjunction,
    implies,
)

_MOST_STEPS: Final = 6_000
_ABSENT: Final = "\0absent"
_OTHER: Final = "\0other"

_FEW: Final = 24


def every(parts: Iterable[Formula]) -> Formula:
    """All of them; of many, without looking which implies which."""
    found = tuple(parts)
    if _are_few(*found):
        return conjunction(found)
    flat: set[Formula] = set()
    for part in found:
        flat |= part.parts if isinstance(part, All) else {part}
    return NEVER if NEVER in flat else All(frozenset(flat))


def some(parts: Iterable[Formula]) -> Formula:
    """Any of them; of many, without looking which implies which."""
    found = tuple(parts)
    if _are_few(*found):
        return disjunction(found)
    flat: set[Formula] = set()
    for part in found:
        flat |= part.parts if isinstance(part, Any) else {part}
    return ALWAYS if ALWAYS in flat else Any(frozenset(flat))


def surely_includes(wider: Formula, narrower: Formula) -> bool:
    """Whether the wider formula holds wherever the narrower does; False may mean "not seen"."""
    if wider in (narrower, ALWAYS) or narrower == NEVER:
        return True
    return _are_few(wider, narrower) and implies(narrower, wider)


def _are_few(*formulas: Formula) -> bool:
    """Whether there are few atoms in all; of many, not all are counted."""
    waiting = list(formulas)
    atoms = 0
    while waiting:
        formula = waiting.pop()
        if isinstance(formula, All | Any):
            waiting.extend(formula.parts)
        else:
            atoms += 1
        if atoms + len(waiting) > _FEW:
            return False
    return True


def _size(formula: Formula) -> int:
    return sum(map(_size, formula.parts)) if isinstance(formula, All | Any) else 1


Variable = tuple[str, tuple[Scalar] | None]
"""A scalar attribute, (name, None); or whether a set attribute has a member, (name, (member,))."""
Cell = Scalar
"""A value; for a member, whether it is one."""
Clause = Mapping[Variable, frozenset[Cell]]
"""What each variable may be; those that are not in it may be anything."""


@lru_cache(maxsize=10_000)
def tidied(formula: Formula) -> Formula:
    """The same records, in as few words as there are."""
    if formula in (ALWAYS, NEVER):
        return formula
    variables = _variables(formula)
    if variables is None:
        return formula
    cells = _size(formula)
    for values in variables.values():
        cells *= len(values)
        if cells > _MOST_STEPS:
            return formula
    names = tuple(variables)
    worlds = [
        dict(zip(names, world, strict=True))
        for world in product(*(variables[name] for name in names))
    ]
    meant: list[dict[Variable, Cell]] = []
    excluded: list[dict[Variable, Cell]] = []
    for world in worlds:
        (meant if _holds(formula, world) else excluded).append(world)
    if len(meant) == len(worlds):
        return ALWAYS
    clauses: list[Clause] = []
    for world in meant:
        if not any(_admits(clause, world) for clause in clauses):
            clauses.append(_widened({n: frozenset({world[n]}) for n in names}, variables, excluded))
    return _formula(_needed(clauses, meant), variables)


def _variables(formula: Formula) -> dict[Variable, tuple[Cell, ...]] | None:
    scalars: dict[str, set[Scalar]] = {}
    members: set[tuple[str, Scalar]] = set()
    for atom in _atoms(formula):
        match atom:
            case Present(attribute, _):
                scalars.setdefault(attribute, set())
            case IsOneOf(attribute, values, _):
                scalars.setdefault(attribute, set()).update(values)
            case HasMember(attribute, values, _):
                members.update((attribute, value) for value in values)
            case _:
                return None
    found: dict[Variable, tuple[Cell, ...]] = {
        (name, (member,)): (True, False) for name, member in sorted(members, key=repr)
    }
    for name, named in sorted(scalars.items()):
        found[name, None] = (*sorted(named, key=repr), _OTHER, _ABSENT)
    return found


def _atoms(formula: Formula) -> Iterator[Formula]:
    if isinstance(formula, All | Any):
        for part in formula.parts:
            yield from _atoms(part)
    else:
        yield formula


def _holds(formula: Formula, world: Mapping[Variable, Cell]) -> bool:
    match formula:
        case All(parts):
            return all(_holds(part, world) for part in parts)
        case Any(parts):
            return any(_holds(part, world) for part in parts)
        case Present(attribute, negated):
            return (world[attribute, None] == _ABSENT) == negated
        case IsOneOf(attribute, values, negated):
            cell = world[attribute, None]
            return cell != _ABSENT and (cell in values) != negated
        case HasMember(attribute, values, negated):
            return any(world[attribute, (value,)] for value in values) != negated
    raise AssertionError("such a formula stays as it is")


def _admits(clause: Clause, world: Mapping[Variable, Cell]) -> bool:
    return all(world[name] in cells for name, cells in clause.items())


def _widened(
    clause: Clause,
    variables: Mapping[Variable, tuple[Cell, ...]],
    excluded: list[dict[Variable, Cell]],
) -> Clause:
    """The clause with as little in it as keeps out all that is excluded."""

    def is_sound(wider: Clause) -> bool:
        return not any(_admits(wider, world) for world in excluded)

    # What is "not so" goes first: people read what must be so.
    order = sorted(clause, key=lambda n: clause[n] <= {True} or _OTHER in clause[n])
    for name in order:
        without = {n: cells for n, cells in clause.items() if n != name}
        if is_sound(without):
            clause = without
    for name in tuple(clause):
        for cell in variables[name]:
            wider = {**clause, name: clause[name] | {cell}}
            if is_sound(wider):
                clause = wider
    return clause


def _needed(clauses: list[Clause], meant: list[dict[Variable, Cell]]) -> list[Clause]:
    """The clauses without those that the others cover."""
    kept = list(clauses)
    for clause in sorted(clauses, key=len, reverse=True):
        rest = [c for c in kept if c is not clause]
        if all(any(_admits(c, world) for c in rest) for world in meant):
            kept = rest
    return kept


def _formula(clauses: Iterable[Clause], variables: Mapping[Variable, tuple[Cell, ...]]) -> Formula:
    found: list[Formula] = []
    # Clauses that differ in one member alone are told together: "treated in cardiology or oncology".
    together: dict[tuple[str, frozenset[tuple[Variable, frozenset[Cell]]]], set[Scalar]] = {}
    for clause in clauses:
        members = [
            (variable, variable[1])
            for variable, cells in clause.items()
            if variable[1] is not None and cells == {True}
        ]
        if len(members) == 1:
            variable, (member,) = members[0]
            rest = frozenset((n, cells) for n, cells in clause.items() if n != variable)
            together.setdefault((variable[0], rest), set()).add(member)
        else:
            found.append(conjunction(_atom(n, cells, variables) for n, cells in clause.items()))
    for (name, rest), values in together.items():
        atoms = (_atom(n, cells, variables) for n, cells in rest)
        found.append(conjunction((HasMember(name, frozenset(values)), *atoms)))
    return disjunction(found)


def _atom(
    variable: Variable, cells: frozenset[Cell], variables: Mapping[Variable, tuple[Cell, ...]]
) -> Formula:
    name, member = variable
    if member is not None:
        return HasMember(name, frozenset(member), negated=cells == {False})
    values = frozenset(cells - {_OTHER, _ABSENT})
    named = frozenset(variables[variable]) - {_OTHER, _ABSENT}
    parts: list[Formula] = []
    if _ABSENT in cells:
        parts.append(Present(name, negated=True))
    if _OTHER in cells:
        rest = named - values
        parts.append(IsOneOf(name, rest, negated=True) if rest else Present(name))
    elif values:
        parts.append(IsOneOf(name, values))
    return disjunction(parts)
