"""``chartgate policy list``: the policies as a table that an auditor reads clause by clause."""

from pathlib import Path

from chartgate.adapters.policy_files import load_policy_version
from chartgate.app.clauses import parse_citation
from chartgate.app.policy_listing import listing
from chartgate.cli import render
from chartgate.demo.shipped import shipped
from chartgate.errors import Refused

_LONGEST = 40
"""Characters of an id beyond which it is broken after all, so that the rest has room."""


def run_list(folder: Path | None, clause: str | None, role: str | None, *, json: bool) -> int:
    """Show the policies that serve a clause or concern a role; answers the exit status."""
    directory = folder or shipped("policies")
    version = load_policy_version(directory)
    wanted = None
    if clause is not None:
        wanted = parse_citation(clause)
        if wanted is None:
            raise Refused(f"{clause!r} is no citation: write 164.508, 164.508(a)(2) or 42 CFR 2.31")
    rows = listing(version, clause=wanted, role=role)
    if json:
        render.print_json(
            {
                "policies": str(directory),
                "version": version.hash,
                "clause": None if wanted is None else str(wanted),
                "role": role,
                "listed": rows,
            }
        )
        return 0 if rows else 1

    from rich import box
    from rich.table import Table

    out = render.console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=False)
    # Ids are looked for by eye and copied.
    width = max((len(row.id) for row in rows), default=0)
    table.add_column("Policy", no_wrap=width <= _LONGEST, overflow="fold")
    for heading in ("What", "Clause, owner, review"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(
            render.plain(row.id) + "\n" + render.plain(f"{row.effect} {_spaced(row.who)}"),
            render.plain(_spaced(row.what)),
            "\n".join(render.plain(text) for text in (row.clause, row.owner, row.review)),
        )
        table.add_row("", "", "")
    if rows:
        out.print(table)
    asked = [f"serve {wanted}"] if wanted is not None else []
    asked += [f"concern {role}"] if role is not None else []
    about = f" that {' and '.join(asked)}" if asked else ""
    out.print(f"{len(rows)} of {len(version.policies)} policies{about}.")
    return 0 if rows else 1


def _spaced(name: str) -> str:
    # view_summary, psychotherapy_notes: read as words, and broken between them.
    return name.replace("_", " ")
