"""``chartgate policy …``: the commands' names, options and help; what they do is imported when run."""

from pathlib import Path
from typing import Annotated

import typer

from chartgate.cli import explaining, policy_compare, policy_life_cycle
from chartgate.cli.options import JsonOption, PoliciesOption, told

policy_app = typer.Typer(
    name="policy",
    no_args_is_help=True,
    help="Check the access policies, and decide which version is in force.",
    rich_markup_mode=None,
)
policy_life_cycle.add_to(policy_app)
policy_compare.add_to(policy_app)
explaining.add_coverage_to(policy_app)


@policy_app.command("test", short_help="Hold the policies against the scenarios.")
@told
def policy_test(
    policies: PoliciesOption = None,
    json: JsonOption = False,
) -> None:
    """Hold the policies against the scenarios: who must see what, written in plain words.

    Reads DIR/scenarios/*.toml. Shows every scenario that the policies do not fulfil, and exits
    with 1 if there is one.
    """
    from chartgate.cli.policy_scenarios import run_scenarios

    raise typer.Exit(run_scenarios(policies, json=json))


@policy_app.command("prove", short_help="Prove the invariants and ceilings, for every request.")
@told
def policy_prove(
    policies: PoliciesOption = None,
    invariant: Annotated[
        list[str] | None,
        typer.Option("--invariant", metavar="ID", help="Prove only this one; may be repeated."),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Show the ceiling of every role and category.")
    ] = False,
    with_other_roles: Annotated[
        bool,
        typer.Option(
            "--with-other-roles",
            help="Prove the ceilings for people who hold other roles as well.",
        ),
    ] = False,
    counterexamples: Annotated[
        Path | None,
        typer.Option(
            "--counterexamples",
            metavar="DIR",
            help="Write each counterexample there, as a scenario that expects what should hold.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long one question may take.")
    ] = 10.0,
    json: JsonOption = False,
) -> None:
    """Prove what must hold for every person, record, purpose and moment there can be.

    Reads DIR/invariants/*.toml and DIR/ceilings.toml. For each claim: proved; or violated, with
    somebody who would see too much; or unknown, and why. A violation has been decided again by the
    policies themselves. Exits with 1 unless everything is proved.
    """
    from chartgate.cli.policy_prove import run_proofs

    raise typer.Exit(
        run_proofs(
            policies,
            only=invariant or (),
            table=table,
            with_others=with_other_roles,
            timeout=timeout,
            counterexamples=counterexamples,
            json=json,
        )
    )


@policy_app.command("lint", short_help="What a reviewer would stumble over.")
@told
def policy_lint(
    policies: PoliciesOption = None,
    json: JsonOption = False,
) -> None:
    """What a reviewer would stumble over, each with its place and what to do about it.

    Permits for anybody, for every action, every record or every purpose; policies that name a
    person, that can never apply, or that her other role gets around; no owner, no review date, no
    clause; roles, and pairs of roles, whose duties should not meet (DIR/duties.toml). Exits with 1
    if there is an error; warnings and notes are for people.
    """
    from chartgate.cli.policy_lint import run_lint

    raise typer.Exit(run_lint(policies, json=json))


@policy_app.command("list", short_help="All policies in short, by clause or role.")
@told
def policy_list(
    policies: PoliciesOption = None,
    clause: Annotated[
        str | None,
        typer.Option(
            "--clause",
            metavar="CLAUSE",
            help="Only what serves this rule: 164.508, 164.508(a)(2), 42 CFR 2.31.",
            show_default=False,
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            "--role",
            metavar="ROLE",
            help="Only what concerns somebody who holds this role alone.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """All policies in short: who may what, which rule it serves, who answers for it until when.

    Exits with 1 if there is none. Versions in the store are listed by `chartgate policy versions`.
    """
    from chartgate.cli.policy_list import run_list

    raise typer.Exit(run_list(policies, clause, role, json=json))
