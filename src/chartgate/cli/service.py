"""``chartgate service``: names, options and help; the work is in ``service_desk``."""

from pathlib import Path
from typing import Annotated

import typer

from chartgate.cli.options import JsonOption, StateOption, told
from chartgate.cli.sign_in import ActorOption

service_app = typer.Typer(
    name="service",
    no_args_is_help=True,
    help="Applications that ask for decisions: who they are, and what they may ask.",
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The application's name.")]
ActionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--action",
        metavar="ACTION",
        help="It may ask about this action, or '*'; may be repeated.",
        show_default=False,
    ),
]
TypesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        help="… of resources of this type, or '*' [default: Record]",
        show_default=False,
    ),
]
CategoriesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--category",
        metavar="NAME",
        help="… about this category of records, or '*'.",
        show_default=False,
    ),
]
AssertsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--believe",
        metavar="PLACE.NAME",
        help="It is believed what it says of this, as context.acr or resource.author; '.*' for all of "
        "a place. Roles, departments, relationships and patients' flags never are.",
        show_default=False,
    ),
]
SearchOption = Annotated[
    bool, typer.Option("--search", help="It may search: everybody who may, everything she may.")
]


@service_app.command("list", short_help="All applications, and which token ends soon.")
@told
def list_(json: JsonOption = False, state: StateOption = None) -> None:
    """All applications with an account, what they may ask, and which token ends soon.

    Exits with 1 when an active application has no token or certificate that counts.
    """
    from chartgate.cli import service_desk as desk

    raise typer.Exit(desk.list_services(state, json=json))


@service_app.command("show", short_help="One application: scope, tokens, certificates.")
@told
def show(name: NameArgument, json: JsonOption = False, state: StateOption = None) -> None:
    """One application: what it may ask, what it is believed, and what it is known by."""
    from chartgate.cli import service_desk as desk

    raise typer.Exit(desk.show_service(name, state, json=json))


@service_app.command("add", short_help="Open an account; it has no token yet.")
@told
def add(
    name: NameArgument,
    title: Annotated[str, typer.Option("--title", metavar="TEXT", help="What it is.")] = "",
    action: ActionsOption = None,
    type_: TypesOption = None,
    category: CategoriesOption = None,
    believe: AssertsOption = None,
    search: SearchOption = False,
    as_: ActorOption = None,
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Open an account for an application. It asks nothing before it has a token.

    Least first: what is not listed, it may not ask (45 CFR 164.502(b)); `service scope` changes it.
    """
    from chartgate.cli import service_desk as desk

    scope = desk.scope_of(action, type_, category, believe, search=search)
    raise typer.Exit(desk.add(name, title, scope, state, as_, json=json))


@service_app.command("scope", short_help="Change what an application may ask.")
@told
def scope(
    name: NameArgument,
    action: ActionsOption = None,
    type_: TypesOption = None,
    category: CategoriesOption = None,
    believe: AssertsOption = None,
    search: SearchOption = False,
    as_: ActorOption = None,
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Replace what an application may ask and is believed: what is not listed again is gone.

    Every node goes by it within a second.
    """
    from chartgate.cli import service_desk as desk

    wanted = desk.scope_of(action, type_, category, believe, search=search)
    raise typer.Exit(desk.set_scope(name, wanted, state, as_, json=json))


@service_app.command("token", short_help="Make a token; its text is shown once.")
@told
def token(
    name: NameArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write it there, readable by you alone, instead of showing it.",
            show_default=False,
        ),
    ] = None,
    days: Annotated[
        int, typer.Option("--days", min=1, max=400, metavar="N", help="When it ends.")
    ] = 90,
    as_: ActorOption = None,
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Make a token for an application. Only its hash is kept: the text is shown this once.

    Two tokens may be valid at once, so that one is replaced without a gap: make the new one, give it
    to the application, see that it is used, then revoke the old one.
    """
    from chartgate.cli import service_desk as desk

    raise typer.Exit(desk.issue(name, out, days, state, as_, json=json))


@service_app.command("revoke", short_help="End a token, now and everywhere.")
@told
def revoke(
    token: Annotated[
        str,
        typer.Argument(metavar="TOKEN_ID", help="Its 8 digits, as `service show` lists them."),
    ],
    as_: ActorOption = None,
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """End a token. Every node refuses it within a second. A token that leaked? Revoke it first."""
    from chartgate.cli import service_desk as desk

    raise typer.Exit(desk.revoke(token, state, as_, json=json))


@service_app.command("pin", short_help="Know an application by its TLS certificate.")
@told
def pin(
    name: NameArgument,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="The certificate (PEM).", show_default=False),
    ] = None,
    fingerprint: Annotated[
        str,
        typer.Option("--fingerprint", metavar="HEX", help="Or its SHA-256.", show_default=False),
    ] = "",
    subject: Annotated[
        str,
        typer.Option(
            "--subject",
            metavar="DN",
            help="Or the subject that the trusted authority gave it.",
            show_default=False,
        ),
    ] = "",
    as_: ActorOption = None,
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Know an application by its TLS certificate (mTLS), where the service has --client-ca."""
    from chartgate.cli import service_desk as desk

    raise typer.Exit(desk.pin(name, file, fingerprint, subject, state, as_, json=json))


@service_app.command("unpin", short_help="A certificate is nobody's any more.")
@told
def unpin(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="As `service show` lists it.")],
    as_: ActorOption = None,
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """A certificate is nobody's any more, everywhere within a second."""
    from chartgate.cli import service_desk as desk

    raise typer.Exit(desk.unpin(number, state, as_, json=json))


@service_app.command("deactivate", short_help="Close an account: nothing of it counts.")
@told
def deactivate(
    name: NameArgument, as_: ActorOption = None, json: JsonOption = False, state: StateOption = None
) -> None:
    """Close an account: none of its tokens and certificates counts any more, on every node within a
    second. `service activate` opens it again."""
    from chartgate.cli import service_desk as desk

    raise typer.Exit(desk.set_active(name, state, as_, active=False, json=json))


@service_app.command("activate", short_help="Open a closed account again.")
@told
def activate(
    name: NameArgument, as_: ActorOption = None, json: JsonOption = False, state: StateOption = None
) -> None:
    """Open a closed account again, with those of its tokens that have not ended."""
    from chartgate.cli import service_desk as desk

    raise typer.Exit(desk.set_active(name, state, as_, active=True, json=json))
