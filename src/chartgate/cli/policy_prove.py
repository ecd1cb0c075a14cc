"""``chartgate policy prove``: verdicts, counterexamples and the table of ceilings.

For whoever answers for the policies: what was claimed, whether it is so, how long it took, and who
would get what if it is not.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from chartgate.adapters.policy_files import load_policy_version
from chartgate.app.ceilings import Ceilings, Cell, ceilings_of, prove_ceilings
from chartgate.app.invariants import Invariant, invariants_of
from chartgate.app.policy_bundle import CEILINGS, PolicyVersion
from chartgate.app.prove import Proof, prove, prover_of
from chartgate.cli import render
from chartgate.demo.shipped import shipped
from chartgate.errors import Misconfigured
from chartgate.model.disclosure import Disclosure

_LETTERS = {
    Disclosure.FULL: "F",
    Disclosure.SUMMARY: "S",
    Disclosure.MASKED: "M",
    Disclosure.WITHHELD: "-",
}
_GAP = 2
"""Columns between two columns of the table of ceilings."""
_EDGES = 2
_MARKS = {"proved": ("✓", "green"), "violated": ("✗", "bold red"), "unknown": ("?", "bold yellow")}
_VERDICTS = {"proved": "green", "violated": "bold red", "unknown": "bold yellow"}


def run_proofs(
    folder: Path | None,
    *,
    only: Sequence[str],
    table: bool,
    with_others: bool,
    timeout: float,
    counterexamples: Path | None,
    json: bool,
) -> int:
    """Prove what the policy folder claims, and show it; answers the exit status."""
    directory = folder or shipped("policies")
    version = load_policy_version(directory)
    invariants = _chosen(invariants_of(version), only)
    ceilings: Ceilings = {}
    if CEILINGS in version.bundle.files and (table or not only):
        ceilings = ceilings_of(version)
    if not invariants and not ceilings:
        raise Misconfigured(f"{directory} has no invariants and no {CEILINGS}: nothing to prove")
    prover = prover_of(version, invariants, now=datetime.now(UTC), timeout=timeout)
    cells_wanted = sum(len(row) for row in ceilings.values())
    with _progress(len(invariants) + cells_wanted, json=json) as step:
        proofs = prove(prover, invariants, clock=time.perf_counter, progress=step)
        cells = prove_ceilings(
            prover, ceilings, clock=time.perf_counter, others=with_others, progress=step
        )
    if counterexamples is not None:
        _write(counterexamples, proofs, cells)
    if json:
        render.print_json(_json(directory, version, proofs, cells, with_others=with_others))
    else:
        _show(directory, version, proofs, cells, table=table, with_others=with_others)
    verdicts = [*(p.verdict for p in proofs), *(c.verdict for c in cells)]
    return int(any(verdict != "proved" for verdict in verdicts))


def _chosen(invariants: tuple[Invariant, ...], only: Sequence[str]) -> tuple[Invariant, ...]:
    known = {invariant.id for invariant in invariants}
    for name in only:
        if name not in known:
            raise Misconfigured(
                f"there is no invariant {name!r}; DIR/invariants/*.toml has their ids"
            )
    return tuple(i for i in invariants if not only or i.id in only)


@contextmanager
def _progress(total: int, *, json: bool) -> Iterator[Any]:
    """A bar on a terminal; nothing elsewhere."""
    out = Console(file=sys.stderr)
    with Progress(console=out, transient=True, disable=json or not out.is_terminal) as bar:
        task = bar.add_task("Proving", total=total)

        def step(done: Proof | Cell) -> None:
            what = done.invariant.id if isinstance(done, Proof) else f"{done.role} {done.category}"
            bar.update(task, advance=1, description=f"Proving {what}")

        yield step


def _write(folder: Path, proofs: Sequence[Proof], cells: Sequence[Cell]) -> None:
    found = {p.invariant.id: p.scenario for p in proofs}
    found |= {f"ceiling_{c.role}_{c.category}": c.scenario for c in cells}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, scenario in found.items():
            if scenario is not None:
                (folder / f"{name}.toml").write_text(scenario, encoding="utf-8")
    except OSError as exc:
        raise Misconfigured(f"cannot write {folder}: {exc.strerror}") from exc


def _json(
    directory: Path,
    version: PolicyVersion,
    proofs: Sequence[Proof],
    cells: Sequence[Cell],
    *,
    with_others: bool,
) -> dict[str, Any]:
    return {
        "policies": str(directory),
        "version": version.hash,
        "policy_set": version.policies.hash,
        "invariants": [
            {
                "id": p.invariant.id,
                "words": p.invariant.words,
                "clause": p.invariant.clause,
                "claim": p.invariant.claim,
                "claimed": p.claimed,
                "verdict": p.verdict,
                "seconds": round(p.seconds, 4),
                "why": p.why,
                "scenario": p.scenario,
            }
            for p in proofs
        ],
        "ceilings": {
            "held": "with_others" if with_others else "alone",
            "cells": [
                {
                    "role": c.role,
                    "category": c.category,
                    "ceiling": c.ceiling.label,
                    "verdict": c.verdict,
                    "seconds": round(c.seconds, 4),
                    "why": c.why,
                    "scenario": c.scenario,
                }
                for c in cells
            ],
        },
    }


def _show(
    directory: Path,
    version: PolicyVersion,
    proofs: Sequence[Proof],
    cells: Sequence[Cell],
    *,
    table: bool,
    with_others: bool,
) -> None:
    out = render.console()
    out.print(
        f"{len(version.policies)} policies in {directory}, version {version.hash[:12]}",
        soft_wrap=True,
    )
    if proofs:
        out.print()
        _show_proofs(out, proofs)
    if cells:
        out.print()
        if table:
            for roles in _parts(cells, out.width):
                out.print(_matrix(cells, roles))
            _legend(out, cells)
        _show_cells(out, cells, with_others=with_others)


def _show_proofs(out: Console, proofs: Sequence[Proof]) -> None:
    # What is broken comes last: that is where whoever waits for the end looks.
    good = [p for p in proofs if p.verdict == "proved"]
    bad = [p for p in proofs if p.verdict != "proved"]
    listed = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for heading, justify in (("Proved", "left"), ("Clause, id", "left"), ("Seconds", "right")):
        listed.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for proof in good:
        i = proof.invariant
        cited = Text(i.clause).append(f"\n{i.id}", style="dim")
        listed.add_row(i.words, cited, f"{proof.seconds:.2f}")
    if good:
        out.print(listed)
    for proof in bad:
        i = proof.invariant
        line = Text(f"{proof.verdict.upper()}  ", style=_VERDICTS[proof.verdict])
        line.append(f"{i.words} ({i.clause})", style="default not bold")
        out.print(line)
        out.print(Text(f"  {i.id}: {proof.claimed}", style="dim"))
        word = "broken by" if proof.verdict == "violated" else "not decided"
        out.print(f"  {word}: {proof.why}")
        out.print()
    total = sum(p.seconds for p in proofs)
    said = f"{len(good)} of {len(proofs)} invariants proved in {total:.1f} s"
    out.print(Text(f"{said}.", style="bold red" if bad else "bold green"))


def _show_cells(out: Console, cells: Sequence[Cell], *, with_others: bool) -> None:
    for cell in cells:
        if cell.verdict == "proved":
            continue
        line = Text(f"{cell.verdict.upper():<9}", style=_VERDICTS[cell.verdict])
        line.append(
            f" {cell.role}: {cell.category} at most {cell.ceiling.label}: {cell.why}",
            style="default not bold",
        )
        out.print(line)
    bad = [c for c in cells if c.verdict != "proved"]
    whom = (
        "whatever other roles its holder has, as long as the permit comes from this one"
        if with_others
        else "for people who hold that role alone, in any departments"
    )
    said = (
        f"{len(cells) - len(bad)} of {len(cells)} ceilings proved in "
        f"{sum(c.seconds for c in cells):.1f} s: for any purpose, time and record, no one in the role "
        f"sees more of the category than its ceiling, {whom}."
    )
    out.print(Text(said, style="bold red" if bad else "bold green"))


def _parts(cells: Sequence[Cell], width: int) -> list[tuple[str, ...]]:
    """The roles in as many tables of like size as it takes for each to fit on the screen."""
    roles = tuple(dict.fromkeys(c.role for c in cells))
    codes = _codes(roles)
    room = width - max(len(c.category) for c in cells) - _GAP - _EDGES
    for count in range(1, len(roles) + 1):
        size = -(-len(roles) // count)
        parts = [roles[at : at + size] for at in range(0, len(roles), size)]
        if all(sum(max(len(codes[r]), 2) + _GAP for r in part) <= room for part in parts):
            return parts
    return [(role,) for role in roles]


def _matrix(cells: Sequence[Cell], roles: Sequence[str]) -> Table:
    codes = _codes(list(dict.fromkeys(c.role for c in cells)))
    matrix = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    matrix.add_column("At most", no_wrap=True)
    for role in roles:
        matrix.add_column(codes[role], no_wrap=True)
    by_place = {(c.role, c.category): c for c in cells}
    for category in dict.fromkeys(c.category for c in cells):
        row = [Text(category)]
        for role in roles:
            cell = by_place.get((role, category))
            if cell is None:
                row.append(Text(""))
            else:
                mark, style = _MARKS[cell.verdict]
                row.append(Text(_LETTERS[cell.ceiling]).append(mark, style=style))
        matrix.add_row(*row)
    return matrix


def _codes(roles: Sequence[str]) -> dict[str, str]:
    """A short heading for each role, of its initials; no two alike."""
    found: dict[str, str] = {}
    for role in roles:
        name = role.upper()
        words = [word for word in name.split("_") if word] or [name]
        initials = words[0][:3] if len(words) == 1 else "".join(word[0] for word in words)
        longer = [name[:n] for n in range(len(initials) + 1, len(name) + 1)]
        numbered = [f"{initials}{n}" for n in range(2, len(roles) + 2)]
        taken = set(found.values())
        found[role] = next(c for c in (initials, *longer, *numbered) if c not in taken)
    return found


def _legend(out: Console, cells: Sequence[Cell]) -> None:
    codes = _codes(list(dict.fromkeys(c.role for c in cells)))
    out.print("  ".join(f"{code} {role}" for role, code in codes.items()))
    out.print("F full, S summary, M masked, - nothing; ✓ proved, ✗ violated, ? unknown.")
    out.print()
