"""``chartgate serve``: options and help; the work is in ``serving``."""

from pathlib import Path
from typing import Annotated

import typer

from chartgate.cli.options import JsonOption, told

LISTEN = "127.0.0.1:8443"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve", short_help="Run the decision service: one policy for every application.")(
        told(serve)
    )


def serve(
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            metavar="DIR",
            help="State folder of the instance to serve: its control plane, policies, keys and audit "
            "log [default: CHARTGATE_STATE, or the demo's]",
            show_default=False,
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where; port 0 takes any free one.")
    ] = LISTEN,
    unix: Annotated[
        Path | None,
        typer.Option(
            "--unix",
            metavar="PATH",
            help="A Unix socket as well, for programs of this computer [default: run/decide.sock in "
            "the state folder]",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=64, metavar="N", help="Processes that decide.")
    ] = 1,
    cert: Annotated[
        Path | None,
        typer.Option(
            "--cert",
            metavar="FILE",
            help="Certificate (PEM, with its chain) [default: one of the instance's own making]",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="Its private key.", show_default=False),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Another name of this machine, for the certificate of our own making; may be "
            "repeated.",
            show_default=False,
        ),
    ] = None,
    base_url: Annotated[
        str,
        typer.Option(
            "--base-url",
            metavar="URL",
            help="The address that applications know, for discovery; needed behind a proxy [default: "
            "as each of them has asked]",
            show_default=False,
        ),
    ] = "",
    client_ca: Annotated[
        Path | None,
        typer.Option(
            "--client-ca",
            metavar="FILE",
            help="Authority of callers' certificates (mTLS): then a caller may have one instead of a "
            "token.",
            show_default=False,
        ),
    ] = None,
    durability: Annotated[
        str,
        typer.Option(
            "--durability",
            metavar="fsync|append",
            help="fsync: every decision is on disk before it is answered. append: decisions that "
            "release no patient's data may be answered up to 5 ms before.",
        ),
    ] = "fsync",
    plain_http: Annotated[
        bool,
        typer.Option(
            "--plain-http", help="Without TLS, on this computer's own address alone (a sidecar)."
        ),
    ] = False,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="A line on stderr for each request, without data.")
    ] = False,
    policies: Annotated[
        Path | None,
        typer.Option(
            "--policies",
            metavar="DIR",
            help="Without a control plane: decide by this folder, --entities and --services alone; "
            "the audit log is kept in --state.",
            show_default=False,
        ),
    ] = None,
    entities: Annotated[
        Path | None,
        typer.Option(
            "--entities", metavar="FILE", help="Its entities (Cedar JSON).", show_default=False
        ),
    ] = None,
    services: Annotated[
        Path | None,
        typer.Option(
            "--services", metavar="FILE", help="Its applications (TOML).", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run the decision service: applications ask it, one policy answers all of them.

    It speaks OpenID AuthZEN 1.0 over HTTPS, and the same in frames over a Unix socket. Every decision
    is in the audit log before it is answered; what cannot be recorded is not answered (503).

    It serves the instance of a state folder. Where that instance runs already (a demo, a gateway), it
    decides beside it and writes through its log; else it starts the log's writer itself, and the
    instance's own databases if it has any. Applications need an account: `chartgate service add`.

    On call? /livez says that a process runs, /readyz whether it may decide and why not (503), /metrics
    the numbers (OpenMetrics). A node that has not heard from the control plane for 15 seconds decides
    nothing until it does. A worker that dies is started again. SIGHUP reads --cert and --key again;
    Ctrl-C or SIGTERM takes nothing new, answers what is under way, and ends.
    """
    from chartgate.cli import serving

    wanted = serving.Wanted(
        state=state,
        listen=listen,
        unix=unix,
        workers=workers,
        certificate=cert,
        key=key,
        names=tuple(name or ()),
        base_url=base_url,
        callers=client_ca,
        durability=durability,
        plain_http=plain_http,
        access_log=access_log,
    )
    if policies is not None or entities is not None or services is not None:
        raise typer.Exit(serving.serve_plain(wanted, policies, entities, services, json=json))
    raise typer.Exit(serving.serve(wanted, json=json))
