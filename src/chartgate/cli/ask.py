"""``chartgate ask``: what the decision service answers an application, in words.

Rules kept: the question is put as an application puts it, with a service token, and is on record
like any other; exit status 0 means allowed, 1 everything else.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from chartgate.cli.options import JsonOption, StateOption, told
from chartgate.errors import Misconfigured

PLACES = ("subject", "action", "resource", "context")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "ask", short_help="Ask the running decision service what it would answer an application."
    )(told(ask))


def ask(
    person: Annotated[str, typer.Argument(metavar="PERSON", help="Login name of who would act.")],
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION", help="view, view_summary, view_masked, create, update, share, export."
        ),
    ],
    patient: Annotated[
        str | None,
        typer.Option(
            "--patient",
            metavar="KEY",
            help="Whose record: her key in the source.",
            show_default=False,
        ),
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(
            "--category",
            metavar="NAME",
            help="What of it: labs, notes …; may be repeated.",
            show_default=False,
        ),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            metavar="TABLE.COLUMN",
            help="Columns instead; may be repeated.",
            show_default=False,
        ),
    ] = None,
    purpose: Annotated[
        str | None,
        typer.Option(
            "--purpose",
            metavar="CODE",
            help="Why, as TREAT or PATRQT [default: her role's]",
            show_default=False,
        ),
    ] = None,
    recipient: Annotated[
        str | None,
        typer.Option(
            "--recipient", metavar="WHO", help="To whom, for share and export.", show_default=False
        ),
    ] = None,
    resource: Annotated[
        str | None,
        typer.Option(
            "--resource",
            metavar="TYPE:ID",
            help="Something else than a record.",
            show_default=False,
        ),
    ] = None,
    said: Annotated[
        list[str] | None,
        typer.Option(
            "--say",
            metavar="PLACE.NAME=VALUE",
            help="Assert something more, as context.acr=2 or resource.author=…; counts only if the "
            "service may say it. May be repeated.",
            show_default=False,
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="Where the service is: https://HOST:PORT or unix:/PATH [default: CHARTGATE_URL, or "
            "the instance's]",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="File with the service token to ask with [default: CHARTGATE_TOKEN_FILE, "
            "CHARTGATE_TOKEN, or the demo's]",
            show_default=False,
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            "--ca",
            metavar="FILE",
            help="Authority of the service's certificate (PEM) [default: the "
            "instance's, or the system's]",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Ask the running decision service what it would answer an application.

    Shows the decision, how much of each category may be shown, the policies that made it, what would
    change it, and where it is on record: the question is recorded like any other. Exits with 0 if it
    is allowed, with 1 if not.
    """
    from chartgate.adapters.state import State, default_root
    from chartgate.cli.asking import address
    from chartgate.cli.asking import ask as put

    question = question_of(
        person, action, patient=patient, categories=category or (), fields=field or (),
        purpose=purpose, recipient=recipient, resource=resource, said=said or (),
    )  # fmt: skip
    where = address(
        State((state or default_root()).absolute()), url=url, token_file=token_file, authority=ca
    )
    answer = put(where, question)
    if json:
        from chartgate.cli.render import print_json

        print_json(answer)
    else:
        from chartgate.cli.ask_render import show_answer
        from chartgate.cli.render import console

        show_answer(console(), question, answer)
    raise typer.Exit(0 if answer["decision"] else 1)


def question_of(
    person: str,
    action: str,
    *,
    patient: str | None = None,
    categories: Sequence[str] = (),
    fields: Sequence[str] = (),
    purpose: str | None = None,
    recipient: str | None = None,
    resource: str | None = None,
    said: Sequence[str] = (),
) -> dict[str, Any]:
    """The question as AuthZEN 1.0 has it; raises ``Misconfigured``."""
    kind, _, name = (resource or f"Record:{patient or 'asked'}").partition(":")
    if not kind or not name:
        raise Misconfigured("--resource is TYPE:ID, as AuditLog:log")
    asked: dict[str, Any] = {}
    if patient is not None:
        asked["patient"] = patient
    if categories:
        asked["categories"] = list(dict.fromkeys(categories))
    if fields:
        asked["fields"] = list(dict.fromkeys(fields))
    context = {
        key: value
        for key, value in (("purpose", purpose), ("recipient", recipient))
        if value is not None
    }
    more: dict[str, dict[str, Any]] = {place: {} for place in PLACES}
    for one in said:
        place, key, value = _said(one)
        more[place][key] = value
    return {
        "subject": _with({"type": "User", "id": person}, more["subject"]),
        "action": _with({"name": action}, more["action"]),
        "resource": _with({"type": kind, "id": name}, {**asked, **more["resource"]}),
        "context": {**context, **more["context"]},
    }


def _with(entity: dict[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    return {**entity, "properties": dict(properties)} if properties else entity


def _said(text: str) -> tuple[str, str, Any]:
    """``context.acr=2``: a number, true, a list … as JSON, anything else as the text it is."""
    what, equals, written = text.partition("=")
    place, dot, name = what.partition(".")
    if not equals or not dot or not name or place not in PLACES:
        raise Misconfigured("--say is PLACE.NAME=VALUE, where PLACE is one of " + ", ".join(PLACES))
    try:
        return place, name, msgspec.json.decode(written)
    except msgspec.DecodeError:
        return place, name, written
