"""``chartgate explain``, ``who-can``, ``what-can``: names, options and help; the work is imported when run."""

from pathlib import Path
from typing import Annotated

import typer

from chartgate.cli.options import JsonOption, StateOption, told
from chartgate.cli.sign_in import PERSON

_AsOption = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="PERSON",
        help=f"Who asks [default: {PERSON}, or the demo's auditor]",
        show_default=False,
    ),
]
_MyPurposeOption = Annotated[
    str,
    typer.Option(
        "--my-purpose",
        metavar="CODE",
        help="For which purpose you ask [default: your role's]",
        show_default=False,
    ),
]
_PoliciesOption = Annotated[
    str | None,
    typer.Option(
        "--policies",
        metavar="DIR",
        help="Under other policies: a folder, 'active', or a version's hash.",
        show_default=False,
    ),
]
_PeopleOption = Annotated[
    Path | None,
    typer.Option(
        "--people",
        metavar="FILE",
        help="People from a TOML file ([[person]] with [[person.assignment]]) instead of an "
        "instance's.",
        show_default=False,
    ),
]
_RecordOption = Annotated[
    list[str] | None,
    typer.Option(
        "--record",
        metavar="KEY=VALUE",
        help="What the record is like: departments=cardiology,oncology, care_team=mwelby, "
        "author=…, department=…, patient=none. Repeat it for more.",
        show_default=False,
    ),
]
_PatientOption = Annotated[
    str | None,
    typer.Option(
        "--patient",
        metavar="MRN",
        help="The record of this patient: medical record number; the patient key where the source "
        "has no such number. Who treats her and the like is looked up.",
        show_default=False,
    ),
]
_AtOption = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="TIME", help="As of when: 2026-03-02 or 2026-03-02T14:30Z [default: now]",
        show_default=False,
    ),
]  # fmt: skip
_ReferenceOption = Annotated[
    str | None,
    typer.Option(
        "--reference",
        metavar="TEXT",
        help="With --role: the ticket or agreement that the role is held with.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands that explain."""
    for name, command, short in (
        ("explain", explain, "Why somebody may or may not, and what would change it."),
        ("who-can", who_can, "Everybody who may do something, and until when."),
        ("what-can", what_can, "All that one person may do."),
    ):
        app.command(name, short_help=short)(told(command))


def add_coverage_to(app: typer.Typer) -> None:
    """Add ``policy coverage``."""
    app.command("coverage", short_help="Which policies decided nothing.")(told(coverage))


def explain(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PERSON] ACTION [CATEGORY[+LABEL…]]",
            help="Who, what and of which record: mwelby view labs+protected_person. Without "
            "PERSON with --role; read_audit and the like take no category.",
            show_default=False,
        ),
    ] = None,
    record: _RecordOption = None,
    patient: _PatientOption = None,
    purpose: Annotated[
        str,
        typer.Option(
            "--purpose",
            metavar="CODE",
            help="The purpose the person claims [default: her role's]",
            show_default=False,
        ),
    ] = "",
    at: _AtOption = None,
    role: Annotated[
        str | None,
        typer.Option(
            "--role",
            metavar="ROLE[@DEPARTMENT]",
            help="Somebody in that role instead of a person; physician@cardiology+nurse@oncology "
            "holds two.",
            show_default=False,
        ),
    ] = None,
    reference: _ReferenceOption = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            "--scenario",
            metavar="TITLE",
            help="Ask what a policy scenario asks: its title, or a part of it.",
            show_default=False,
        ),
    ] = None,
    policies: _PoliciesOption = None,
    people: _PeopleOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="Show every near policy and every change that helps.")
    ] = False,
    as_: _AsOption = None,
    my_purpose: _MyPurposeOption = "",
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Explain a decision: which policies made it, condition by condition, with the values.

    When the answer is no, or less than was asked: the nearest policies and what they miss, and the
    smallest changes that would allow it, each tried before it is shown. A record is described with
    --record; "care_team=self" is the person asked about; what is not said of sets is none.

    With --patient the record is that patient's: who treats her, where, and whether she is protected
    is looked up in the source when you ask, counts, and is not shown; the log keeps a token instead
    of the number. Rows that carry labels of their own are asked with CATEGORY+LABEL.

    Asking about a person of an instance is like reading the audit log: you sign in, policy decides,
    and the question is recorded. With --role, --scenario or --people nobody real is asked about.
    """
    from chartgate.cli.explain import run_explain
    from chartgate.cli.explain_inputs import Asker

    raise typer.Exit(
        run_explain(
            words or (),
            record=record or (),
            purpose=purpose,
            at=at,
            role=role,
            reference=reference,
            scenario=scenario,
            asker=Asker(state, as_, my_purpose, policies, people, patient=patient),
            full=full,
            json=json,
        )
    )


def who_can(
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION",
            help="view (at any level), view_summary (at least), create, update, read_audit …",
        ),
    ],
    category: Annotated[
        str | None,
        typer.Argument(metavar="[CATEGORY[+LABEL…]]", help="Such as labs+protected_person."),
    ] = None,
    record: _RecordOption = None,
    patient: _PatientOption = None,
    at: _AtOption = None,
    roles: Annotated[
        bool, typer.Option("--roles", help="Ask about roles instead of people.")
    ] = False,
    policies: _PoliciesOption = None,
    people: _PeopleOption = None,
    as_: _AsOption = None,
    my_purpose: _MyPurposeOption = "",
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """List everybody who may do something: at which level, for which purposes, through which
    assignment, by which policies, until when, and what ends it.

    The list is complete: every active person is asked, for every purpose that she may claim. What
    --record does not say of the record is left open, and the answer says which records it holds for.

    With --patient the record is that patient's: who treats her, where, and whether she is protected
    is looked up in the source when you ask, counts, and is not shown; the log keeps a token instead
    of the number. Rows that carry labels of their own are asked with CATEGORY+LABEL.

    Asking about an instance's people is like reading the audit log: you sign in, policy decides, and
    the question is recorded. Without an instance, or with --roles, roles are listed.
    """
    from chartgate.cli.explain_inputs import Asker
    from chartgate.cli.who_can import run_who_can

    raise typer.Exit(
        run_who_can(
            action,
            category,
            record=record or (),
            at=at,
            asker=Asker(state, as_, my_purpose, policies, people, roles, patient),
            json=json,
        )
    )


def what_can(
    person: Annotated[
        str | None, typer.Argument(metavar="[PERSON]", help="Login name.", show_default=False)
    ] = None,
    at: _AtOption = None,
    role: Annotated[
        str | None,
        typer.Option(
            "--role",
            metavar="ROLE[@DEPARTMENT]",
            help="Somebody in that role instead of a person.",
            show_default=False,
        ),
    ] = None,
    reference: _ReferenceOption = None,
    policies: _PoliciesOption = None,
    people: _PeopleOption = None,
    as_: _AsOption = None,
    my_purpose: _MyPurposeOption = "",
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """List all that one person may: every action on every category, for every purpose that she may
    claim, of which records, until when, and what ends it.

    Asking about a person of an instance is like reading the audit log: you sign in, policy decides,
    and the question is recorded. With --role or --people nobody real is asked about.
    """
    from chartgate.cli.explain_inputs import Asker
    from chartgate.cli.what_can import run_what_can

    raise typer.Exit(
        run_what_can(
            person,
            role=role,
            reference=reference,
            at=at,
            asker=Asker(state, as_, my_purpose, policies, people),
            json=json,
        )
    )


def coverage(
    log: Annotated[
        bool, typer.Option("--log", help="Over the recorded log instead of the scenarios.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="With --log: only since then: 30d, 12h, 90m or a day as 2026-03-02 [default: all]",
            show_default=False,
        ),
    ] = None,
    unused: Annotated[
        bool, typer.Option("--unused", help="List only the policies that decided nothing.")
    ] = False,
    policies: _PoliciesOption = None,
    as_: _AsOption = None,
    my_purpose: _MyPurposeOption = "",
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Show which policies decided something, and which decided nothing: untested, or without effect.

    Over the scenarios: each policy with the number of scenarios that it determines and one of them;
    exits with 1 if a policy determines none. Over the log (--log): how many recorded decisions rest
    on it, and the last one; you sign in as for the audit log, and the question is recorded. Clause
    by clause as well.
    """
    from chartgate.cli.policy_coverage import run_coverage

    raise typer.Exit(
        run_coverage(
            policies,
            log=log,
            since=since,
            state=state,
            as_=as_,
            purpose=my_purpose,
            unused=unused,
            json=json,
        )
    )
