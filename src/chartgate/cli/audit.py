"""``chartgate audit``: ask the log who saw a patient, what a person did, and whether it is whole.

Rules kept: whoever reads the log signs in as a person and policy decides; the question is in the
log before a line of the answer appears. ``verify`` shows no content and needs nothing but the log
and what is kept outside it.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, tzinfo
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from chartgate.adapters.state import Instance, RolledBack, State, default_root
from chartgate.cli.sign_in import PERSON, password_of
from chartgate.errors import ChartgateError, Misconfigured

if TYPE_CHECKING:
    from chartgate.adapters.audit_desk import AuditDesk
    from chartgate.datamap.model import DataMap
    from chartgate.model.principal import Person

audit_app = typer.Typer(
    name="audit", no_args_is_help=True, help="Ask the audit log, and verify it."
)

_P = ParamSpec("_P")
_FOLLOW_SECONDS = 0.5

StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state", metavar="DIR", help="State folder [default: CHARTGATE_STATE, or the demo's]"
    ),
]
AsOption = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="NAME", help=f"Who asks [default: {PERSON}, or the demo's auditor]"
    ),
]
PurposeOption = Annotated[
    str, typer.Option("--purpose", metavar="CODE", help="Purpose of use [default: the role's]")
]
OnOption = Annotated[
    str | None, typer.Option("--on", metavar="DATE", help="One day, as 2026-03-02")
]
ZoneOption = Annotated[
    str, typer.Option("--zone", metavar="ZONE", help="Time zone of days and times")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON")]


def _told(command: Callable[_P, None]) -> Callable[_P, None]:
    """Our errors are one line on stderr and exit status 1."""

    @wraps(command)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except ChartgateError as exc:
            typer.echo(f"chartgate: {exc}", err=True)
            raise typer.Exit(1) from exc

    return guarded


@dataclass(frozen=True, slots=True)
class _Sitting:
    """A person who signed in, at a desk."""

    state: State
    instance: Instance
    desk: "AuditDesk"
    person: "Person"
    data_map: "DataMap"
    purpose: str
    zone: tzinfo


@audit_app.command()
@_told
def who(
    patient: Annotated[
        str,
        typer.Option(
            "--patient",
            metavar="MRN",
            help="Medical record number; the patient key where the source has no such number",
        ),
    ],
    on: OnOption = None,
    zone: ZoneOption = "UTC",
    as_: AsOption = None,
    purpose: PurposeOption = "",
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Who saw, wrote or looked for a patient."""
    from chartgate.adapters.audit_sources import patient_lookup, running
    from chartgate.adapters.keys import KeyStore, TokenKeys
    from chartgate.app.audit_queries import who_accessed
    from chartgate.app.tokens import IDENTIFIER, PATIENT, PatientTokens
    from chartgate.cli import render

    day = _day(on)
    if not patient.strip():
        raise Misconfigured("--patient takes a medical record number")
    notes: list[str] = []
    with _sitting(state, as_, purpose, zone) as sitting:
        keys = TokenKeys(KeyStore(sitting.state.keys_dir), create=False)
        tokens = PatientTokens(keys, sitting.data_map.source)
        sought = set(tokens.all_years(IDENTIFIER, patient))

        def parameters(allowed: bool) -> dict[str, str]:
            if allowed:
                with running(
                    sitting.state.legacy_pg,
                    sitting.instance.legacy,
                    embedded=sitting.instance.embedded,
                ) as conninfo:
                    key = patient_lookup(conninfo, sitting.data_map)(patient)
                if key is None:
                    notes.append(
                        "Note: the source has no patient of this number today; "
                        "the log was searched for the number itself."
                    )
                else:
                    sought.update(tokens.all_years(PATIENT, key))
            recorded = {"patient": ",".join(sorted(sought)), "zone": zone}
            return recorded | ({"on": day.isoformat()} if day else {})

        index = sitting.desk.ask(
            sitting.person, "who accessed a patient", parameters, purpose=sitting.purpose
        )
        report = who_accessed(
            sitting.desk.entries(0, index), frozenset(sought), day, zone=sitting.zone
        )
        names = sitting.desk.names()
        if json:
            render.print_json(
                {
                    "question": {"patient": patient, "on": day, "zone": zone},
                    "asked_by": sitting.person.name,
                    "event": index,
                    "notes": notes,
                    "report": report,
                    "closing": report.closing,
                    "names": names,
                }
            )
            return
        out = render.console()
        notes.insert(0, _asked(sitting, index))
        render.show_who(out, report, names, patient=patient, zone=sitting.zone, notes=notes)


@audit_app.command()
@_told
def user(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Login name of a person")],
    on: OnOption = None,
    zone: ZoneOption = "UTC",
    as_: AsOption = None,
    purpose: PurposeOption = "",
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """What a person did."""
    from chartgate.app.audit_queries import of_user
    from chartgate.cli import render

    day = _day(on)
    with _sitting(state, as_, purpose, zone) as sitting:
        uid = sitting.desk.uid_of(name)
        recorded = {"person": uid or "unknown", "zone": zone}
        recorded |= {"on": day.isoformat()} if day else {}
        index = sitting.desk.ask(
            sitting.person, "what a person did", lambda _: recorded, purpose=sitting.purpose
        )
        if uid is None:
            raise Misconfigured("there is no person of that name")
        report = of_user(sitting.desk.entries(0, index), uid, day, zone=sitting.zone)
        names = sitting.desk.names()
        if json:
            render.print_json(
                {
                    "question": {"person": name, "on": day, "zone": zone},
                    "asked_by": sitting.person.name,
                    "event": index,
                    "report": report,
                    "names": names,
                }
            )
            return
        out = render.console()
        notes = [_asked(sitting, index)]
        render.show_user(out, report, names, name=name, zone=sitting.zone, notes=notes)


@audit_app.command()
@_told
def tail(
    n: Annotated[
        int, typer.Option("-n", metavar="N", min=0, max=10_000, help="How many events")
    ] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events come")] = False,
    zone: ZoneOption = "UTC",
    as_: AsOption = None,
    purpose: PurposeOption = "",
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """The newest events; they name no patient."""
    from chartgate.adapters.audit_desk import READ, READ_TECHNICAL
    from chartgate.app.audit_tail import tail as newest
    from chartgate.cli import render

    with _sitting(state, as_, purpose, zone) as sitting:
        index = sitting.desk.ask(
            sitting.person,
            "the newest events",
            lambda _: {"n": str(n), "follow": str(follow).lower()},
            actions=(READ, READ_TECHNICAL),
            purpose=sitting.purpose,
        )
        start = max(0, index - n)
        rows = newest(sitting.desk.entries(start, index), n)
        names = sitting.desk.names()
        if json:
            for row in rows:
                render.print_json(row, indent=0)
        else:
            out = render.console()
            render.show_tail(out, rows, names, zone=sitting.zone)
            out.print(_asked(sitting, index))
        if follow:
            _follow(sitting, index, json=json)


@audit_app.command(short_help="Show that nobody altered the log.")
@_told
def verify(
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", metavar="FILE", help="Public key [default: keys/log.key.pub of the state]"
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="Known checkpoint [default: checkpoints/last of the state]",
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", metavar="DIR", help="Log folder [default: log of the state]"),
    ] = None,
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Recompute the whole log and hold it against a key and checkpoint from outside it."""
    from chartgate.adapters.log_verify import verify as verify_log
    from chartgate.cli import render
    from chartgate.tlog.checkpoint import peek
    from chartgate.tlog.note import VerifierKey

    place = State((state or default_root()).absolute())
    directory = (log or place.log_dir).absolute()
    key_file = key or place.log_public_key
    known_file = checkpoint or place.checkpoint_file
    for file in (key_file, known_file):
        if file.resolve().is_relative_to(directory.resolve()):
            raise Misconfigured(f"{file} lies inside the log: what verifies it must not")
    if not directory.is_dir():
        raise Misconfigured(f"there is no log in {directory}")
    vkey = _read(key_file, "public key").strip()
    try:
        parsed = VerifierKey.parse(vkey)
    except ChartgateError as exc:
        raise Misconfigured(f"the public key {key_file}: {exc}") from exc
    known = _read(known_file, "checkpoint") if checkpoint else place.known_checkpoint()
    verified = verify_log(directory, vkey, known)
    # Only the gate's own account replaces its checkpoint: left by another, the gate cannot read it.
    ours = directory == place.log_dir and checkpoint is None and key is None
    ours = ours and place.root.stat().st_uid == os.geteuid()
    if ours:
        with suppress(RolledBack):  # a running gateway has saved a newer one meanwhile
            place.save_checkpoint(verified.checkpoint)
    facts = {
        "log": str(directory),
        "size": verified.size,
        "root": verified.root.hex(),
        "key_name": parsed.name,
        "key_id": parsed.key_id.hex(),
        "key_file": str(key_file),
        "known_size": None if known is None else peek(known).size,
        "known_file": None if known is None else str(known_file),
        "unfinished": verified.unfinished,
        "saved": str(place.checkpoint_file) if ours else None,
    }
    if json:
        render.print_json({"verified": True, **facts, "checkpoint": verified.checkpoint})
    else:
        render.show_verified(render.console(), facts)


@contextmanager
def _sitting(folder: Path | None, name: str | None, purpose: str, zone: str) -> Iterator[_Sitting]:
    """Sign in at the state folder's desk."""
    from chartgate.adapters.audit_desk import AuditDesk
    from chartgate.adapters.audit_sources import running
    from chartgate.adapters.control_plane import open_control_plane
    from chartgate.adapters.policy_in_force import load_for

    state = State((folder or default_root()).absolute())
    instance = state.instance()
    found = _zone(zone)
    who_asks = name or os.environ.get(PERSON) or instance.auditor
    if not who_asks:
        raise Misconfigured(f"say who you are: --as NAME, or {PERSON}")
    point = load_for(state, instance).point
    with (
        running(state.control_pg, instance.control, embedded=instance.embedded) as conninfo,
        open_control_plane(conninfo) as people,
    ):
        desk = AuditDesk(state, instance, point, people.snapshot)
        person = desk.sign_in(who_asks, password_of(state, who_asks))
        yield _Sitting(state, instance, desk, person, point.data_map, purpose, found)


def _follow(sitting: _Sitting, start: int, *, json: bool) -> None:
    """Print events as they come, for as long as policy lets the person read."""
    from chartgate.adapters.audit_desk import READ, READ_TECHNICAL
    from chartgate.app.audit_tail import tail_row
    from chartgate.cli import render

    while True:
        size = sitting.desk.size
        if size > start:
            actions = (READ, READ_TECHNICAL)
            if not any(
                sitting.desk.allows(sitting.person, action, purpose=sitting.purpose)
                for action in actions
            ):
                raise Misconfigured("policy no longer lets you read the audit log")
            names = sitting.desk.names()
            for index, event in sitting.desk.entries(start, size):
                row = tail_row(index, event)
                if json:
                    render.print_json(row, indent=0)
                else:
                    typer.echo(render.tail_line(row, names, sitting.zone))
            sys.stdout.flush()
            start = size
        try:
            time.sleep(_FOLLOW_SECONDS)
        except KeyboardInterrupt:
            return


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise Misconfigured("--on takes a day as 2026-03-02")
    return day


def _zone(name: str) -> tzinfo:
    if name == "UTC":  # needs no time zone database
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Misconfigured("--zone takes a name like UTC or America/New_York") from None


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise Misconfigured(f"the {what} {path}: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise Misconfigured(f"the {what} {path} is not text") from None


def _asked(sitting: _Sitting, index: int) -> str:
    return (
        f"Asked by {sitting.person.full_name} ({sitting.person.name}); "
        f"the question is event {index} of the log."
    )
