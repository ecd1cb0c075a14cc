"""``chartgate policy diff``: what another version says and decides, in words.

Rules kept: what is shown as a change was decided under both versions; what is called unchanged was
proved; what is neither is called unknown, and the exit status says that there is something to read.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from chartgate.app.policy_bundle import PolicyVersion, open_bundle
from chartgate.app.policy_diff import Cell, PolicyDiff, Shown, Verdict, policy_diff
from chartgate.app.proof_diff import Comparison
from chartgate.app.version_facts import Facts
from chartgate.cli import render
from chartgate.cli.policy_refs import bundle_of
from chartgate.errors import Misconfigured

_STYLES: Final[Mapping[Verdict, str]] = {
    Verdict.ALLOWED: "bold red",
    Verdict.RAISED: "bold red",
    Verdict.BOTH: "bold red",
    Verdict.DENIED: "bold yellow",
    Verdict.LOWERED: "bold yellow",
    Verdict.UNKNOWN: "bold magenta",
}
_CLAUSE: Final = "164.308(a)(8)"


def run_diff(
    before: str,
    after: str,
    *,
    scenarios: Path | None,
    timeout: float,
    state: Path | None,
    json: bool,
) -> int:
    """Compare two versions; 1 when something changes or is unknown."""
    one, other = (open_bundle(bundle_of(reference, state)) for reference in (before, after))
    quiet = json or not sys.stderr.isatty()
    diff = policy_diff(
        one,
        other,
        lambda: Comparison(one, other, now=datetime.now(UTC), timeout=timeout),
        progress=(lambda _, __: None) if quiet else _progress,
    )
    written = None if scenarios is None else _write(scenarios, diff)
    if json:
        render.print_json(as_json(diff, (before, after)))
    else:
        _show(render.console(), diff, (before, after))
        if written is not None:
            render.console().print(f"{written.count} scenarios in {written.path}.")
    return 0 if diff.is_same else 1


def _progress(done: int, of: int) -> None:
    end = "\r\033[K" if done == of else f"\rcomparing {done} of {of} actions and categories "
    sys.stderr.write(end)
    sys.stderr.flush()


# --- as JSON --------------------------------------------------------------------------------------


def as_json(diff: PolicyDiff, references: tuple[str, str]) -> dict[str, Any]:
    """Everything that differs; a cell that is not listed was proved unchanged."""
    return {
        "before": {"reference": references[0], "hash": diff.before.hash},
        "after": {"reference": references[1], "hash": diff.after.hash},
        "same": diff.is_same,
        "facts": diff.facts.facts,
        "files": diff.facts.files,
        "claims": diff.claims,
        "cells": len(diff.cells),
        "verdicts": _counts(diff),
        "changed": [_cell_json(cell, diff) for cell in diff.changed],
    }


def _counts(diff: PolicyDiff) -> dict[str, int]:
    counted = Counter(cell.verdict for cell in diff.cells)
    return {verdict.value: counted[verdict] for verdict in Verdict if counted[verdict]}


def _cell_json(cell: Cell, diff: PolicyDiff) -> dict[str, Any]:
    return {
        "role": cell.role,
        "action": cell.action,
        "category": cell.category,
        "verdict": cell.verdict,
        "more": _shown_json(cell.more, cell, diff),
        "less": _shown_json(cell.less, cell, diff),
        "why": cell.why,
    }


def _shown_json(shown: Shown | None, cell: Cell, diff: PolicyDiff) -> dict[str, Any] | None:
    if shown is None:
        return None
    return {
        "before": shown.before,
        "after": shown.after,
        "words": _words(shown, diff),
        "scenario": _scenario(shown, cell),
    }


# --- as scenarios ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Written:
    path: Path
    count: int


def _write(folder: Path, diff: PolicyDiff) -> _Written | None:
    """The examples as a scenario file: what the second version decides of each."""
    found: dict[str, str] = {}
    for cell in diff.changed:
        for shown in (cell.more, cell.less):
            text = None if shown is None else _scenario(shown, cell)
            if text is not None:
                title, _, rest = text.partition("\n")[2].partition("\n")
                found.setdefault(rest, f"[[scenario]]\n{title}\n{rest}")
    if not found:
        return None
    path = folder / f"changed_{diff.before.hash[:8]}_{diff.after.hash[:8]}.toml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(found.values()), encoding="utf-8")
    except OSError as exc:
        raise Misconfigured(f"cannot write {path}: {exc.strerror}") from exc
    return _Written(path, len(found))


def _scenario(shown: Shown, cell: Cell) -> str | None:
    of = f" {cell.category}" if cell.category else ""
    title = f"{cell.role}: {cell.action}{of} is {shown.after}, was {shown.before}"
    return shown.example.scenario(title, shown.after, _CLAUSE)


# --- on paper -------------------------------------------------------------------------------------


def _show(out: Console, diff: PolicyDiff, references: tuple[str, str]) -> None:
    one, other = (
        f"{reference} ({version.hash[:12]})"
        for reference, version in zip(references, (diff.before, diff.after), strict=True)
    )
    out.print(Text(f"From {one} to {other}", style="bold"))
    out.print()
    _show_facts(out, diff.facts)
    for claims in diff.claims:
        for words, purposes in (
            ("may now claim", claims.more),
            ("may no longer claim", claims.less),
        ):
            if purposes:
                out.print(render.plain(f"{claims.role} {words}: {', '.join(purposes)}"))
    if diff.claims:
        out.print()
    for roles, cells in _alike(diff.changed):
        _show_cells(out, roles, cells, diff)
    _show_verdict(out, diff)


def _show_facts(out: Console, facts: Facts) -> None:
    if not facts.files:
        out.print("Every file is the same.")
    elif not facts.facts:
        out.print("Only comments, layout or order differ: " + ", ".join(facts.files) + ".")
    for (part, change), group in groupby(facts.facts, key=lambda fact: (fact.part, fact.change)):
        listed = [f.name + (f" ({f.detail})" if f.detail else "") for f in group]
        plural = part if len(listed) == 1 else f"{part[:-1]}ies" if part == "policy" else f"{part}s"
        out.print(render.plain(f"{plural} {change}: {', '.join(listed)}"))
    out.print()


def _alike(cells: Iterable[Cell]) -> list[tuple[list[str], list[Cell]]]:
    """Roles for which the same cells changed alike, with the cells of the first of them."""
    by_role: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        ends = tuple((s.before, s.after) if s else None for s in (cell.more, cell.less))
        by_role.setdefault((cell.role, cell.verdict, ends, cell.why), []).append(cell)
    found: dict[tuple[Any, ...], tuple[list[str], list[Cell]]] = {}
    for (role, *how), changed in by_role.items():
        what = (*how, *((cell.action, cell.category) for cell in changed))
        found.setdefault(what, ([], changed))[0].append(role)
    return list(found.values())


def _show_cells(out: Console, roles: list[str], cells: list[Cell], diff: PolicyDiff) -> None:
    first = cells[0]
    by_categories: dict[tuple[str, ...], list[str]] = {}
    for action in dict.fromkeys(cell.action for cell in cells):
        categories = tuple(c.category or "" for c in cells if c.action == action)
        by_categories.setdefault(categories, []).append(action)
    words = "; ".join(
        ", ".join(actions) + (f" of {', '.join(categories)}" if any(categories) else "")
        for categories, actions in by_categories.items()
    )
    ends = [f"{s.before} → {s.after}" for s in (first.more, first.less) if s]
    head = Text(str(first.verdict).capitalize(), style=_STYLES.get(first.verdict, ""))
    said = render.plain(f"  {', '.join(roles)}: {words}")
    head.append(said, style="not bold default")
    if ends:
        head.append(f"  ({', '.join(ends)})", style="not bold default")
    out.print(head)
    for shown in (first.more, first.less):
        if shown is not None:
            _indented(out, f"For example: {_words(shown, diff)}.")
    if first.why:
        _indented(out, f"Not decided: {first.why}.")
    out.print()


def _indented(out: Console, text: str) -> None:
    out.print(Padding(render.plain(text), (0, 0, 0, 4), expand=False))


def _words(shown: Shown, diff: PolicyDiff) -> str:
    words = shown.example.words(diff.after.policies, diff.after.roles)
    because = _because(shown, diff.before)
    return f"{words}; before: {shown.before}{because}"


def _because(shown: Shown, version: PolicyVersion) -> str:
    determining = shown.example.answer(version.policies, version.roles).determining
    return f" (by {', '.join(determining)})" if determining else ""


def _show_verdict(out: Console, diff: PolicyDiff) -> None:
    if diff.is_same:
        how = "proved" if diff.cells else "what decides is written the same"
        out.print(Text(f"Every request has the answer that it had: {how}.", style="bold green"))
        return
    if not diff.cells:
        out.print(Text("Only the purposes that may be claimed change.", style="bold yellow"))
        return
    counts = _counts(diff)
    unchanged = counts.pop(Verdict.UNCHANGED.value, 0)
    changed = ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items())
    out.print(
        Text(
            f"Of {len(diff.cells):,} combinations of role, action and category: "
            f"{changed or 'none changed'}.",
            style="bold red" if counts else "bold green",
        )
    )
    out.print(
        f"{unchanged:,} are proved unchanged: for everyone who holds nothing but the role, every "
        "record, purpose and moment there can be."
    )
