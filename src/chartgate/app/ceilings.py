"""The most that anyone in a role may see of each category: a table, proved cell by cell.

The rule kept (45 CFR 164.514(d)(2), minimum necessary by class of persons and category of
information): ``ceilings.toml`` is written from the hospital's own table of roles, apart from the
policies; a cell is proved when no person of the role, in whatever departments she holds it, for
whatever purpose, at whatever time, reaches a level above the ceiling on any record.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from typing import Literal as OneOf

from chartgate.app.policy_bundle import CEILINGS, PolicyVersion
from chartgate.app.proof_example import Example
from chartgate.app.prover import Prover, Target, Who
from chartgate.errors import Misconfigured
from chartgate.model.disclosure import VIEW_ACTIONS, Disclosure
from chartgate.targets.smt.solve import Nothing, Unknown

Verdict = OneOf["proved", "violated", "unknown"]
Ceilings = Mapping[str, Mapping[str, Disclosure]]


class InvalidCeilings(Misconfigured):
    """``ceilings.toml`` cannot be proved as written; the message names role and category."""

    code = "invalid_ceilings"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the table: a role, a category, the most that may be seen, and what came of it.

    ``why``: the counterexample in words, or what kept it from being decided.
    """

    role: str
    category: str
    ceiling: Disclosure
    verdict: Verdict
    seconds: float
    why: str = ""
    example: Example | None = None
    scenario: str | None = None


def ceilings_of(version: PolicyVersion) -> Ceilings:
    """The ceilings of a policy folder; every role named there has one for every category."""
    document = version.bundle.toml(CEILINGS)
    kind = version.schema.entities.get("Category")
    categories = (kind.enum or ()) if kind else ()
    return {role: _row(role, form, version, categories) for role, form in document.items()}


def _row(
    role: str, form: Any, version: PolicyVersion, categories: Iterable[str]
) -> Mapping[str, Disclosure]:
    where = f"{CEILINGS}: {role}"
    if role not in version.roles.roles:
        raise InvalidCeilings(f"{where}: there is no such role")
    if not isinstance(form, Mapping):
        raise InvalidCeilings(f"{where}: not a table of categories")
    wanted = tuple(categories)
    if unknown := sorted(set(form) - set(wanted)):
        raise InvalidCeilings(f"{where}: there is no category {', '.join(unknown)}")
    if missing := [name for name in wanted if name not in form]:
        raise InvalidCeilings(f"{where}: says nothing of {', '.join(missing)}")
    return {name: _level(f"{where}.{name}", form[name]) for name in wanted}


def _level(where: str, word: Any) -> Disclosure:
    for level in Disclosure:
        if level.label == word:
            return level
    raise InvalidCeilings(f"{where}: one of {', '.join(level.label for level in Disclosure)}")


def prove_ceilings(
    prover: Prover,
    ceilings: Ceilings,
    *,
    clock: Callable[[], float],
    others: bool = False,
    progress: Callable[[Cell], None] = lambda _: None,
) -> tuple[Cell, ...]:
    """The verdict of every cell.

    ``others``: the person may hold any other roles beside, as long as the permit comes from an
    assignment of this one. Without it, she holds this role alone, any number of times.
    """
    cells = []
    for role, row in ceilings.items():
        for category, ceiling in row.items():
            cell = _cell(prover, role, category, ceiling, clock=clock, others=others)
            cells.append(cell)
            progress(cell)
    return tuple(cells)


def _cell(
    prover: Prover,
    role: str,
    category: str,
    ceiling: Disclosure,
    *,
    clock: Callable[[], float],
    others: bool,
) -> Cell:
    started = clock()
    if ceiling is Disclosure.FULL:
        # Nothing is above: there is no request to look for.
        return Cell(role, category, ceiling, "proved", clock() - started)
    above = Disclosure(ceiling + 1)
    version = prover.version
    found = prover.search(
        Who((role,), others=others),
        Target("Record", (VIEW_ACTIONS[above],), (category,)),
        lambda question, _: question.reached(above),
        lambda example: example.level(version.policies, version.roles) >= above,
    )
    seconds = clock() - started
    if isinstance(found, Nothing):
        return Cell(role, category, ceiling, "proved", seconds)
    if isinstance(found, Unknown):
        return Cell(role, category, ceiling, "unknown", seconds, found.why)
    title = f"{role}: {category} is seen {ceiling.label} at most"
    return Cell(
        role,
        category,
        ceiling,
        "violated",
        clock() - started,
        found.words(version.policies, version.roles),
        found,
        found.scenario(title, ceiling.label, "164.514(d)(2)"),
    )
