"""``chartgate policy replay``: whom a candidate would have hit, from the recorded log.

Rules kept: a replay is a reading of the log: who asks signs in, policy decides, and the question is
recorded before a line of the answer appears (45 CFR 164.312(b)); names are shown to those who may
read the log with identities, to others roles and numbers alone.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
from rich import box
from rich.table import Table
from rich.text import Text

from chartgate.adapters.audit_desk import READ, READ_TECHNICAL, AuditDesk
from chartgate.adapters.audit_sources import SourceUnavailable, running
from chartgate.adapters.keys import KeyStore, TokenKeys
from chartgate.adapters.policy_in_force import Loaded, load
from chartgate.adapters.replay_log import RecordedPeople, Requests
from chartgate.adapters.source_catalog import read_source
from chartgate.app.entitlement import DecisionPoint
from chartgate.app.policy_bundle import Bundle, open_bundle
from chartgate.app.replay import Flip, Replay
from chartgate.app.replay_report import FlipRow, ReplayReport, replay
from chartgate.app.session_views import Source
from chartgate.app.tokens import PATIENT, PatientTokens
from chartgate.cli import render
from chartgate.cli.policy_refs import bundle_of
from chartgate.cli.policy_store import Store, opened
from chartgate.cli.sign_in import password_of
from chartgate.errors import ChartgateError, Misconfigured
from chartgate.govern.policy_version import POLICIES

_SINCE: Final = re.compile(r"([1-9][0-9]{0,4})([dhm])")
_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes"}
_MORE: Final = frozenset({Flip.ALLOWED, Flip.SHOWN, Flip.RAISED})
_LESS: Final = frozenset({Flip.REFUSED, Flip.HIDDEN, Flip.LOWERED})
_ROWS: Final = " Whether other rows are more or fewer, the log cannot tell."


def run_replay(
    reference: str,
    *,
    since: str | None,
    state: Path | None,
    name: str | None,
    purpose: str,
    json: bool,
) -> int:
    """Decide the log again under a candidate; 1 when something flips."""
    start = since_when(since, datetime.now(UTC))
    candidate = bundle_of(reference, state)
    with opened(state) as store:
        in_force = store.loaded()
        again = load(candidate, in_force.map_bundle, {})
        who = name or store.instance.auditor
        if not who:
            raise Misconfigured("say who you are: --as PERSON")
        desk = AuditDesk(store.state, store.instance, in_force.point, store.control.snapshot)
        person = desk.sign_in(who, password_of(store.state, who))
        question = {"candidate": candidate.hash, "policy_set": again.version.policies.hash}
        question |= {"since": start.isoformat()} if start else {}
        index = desk.ask(
            person,
            "what other policies would have decided",
            lambda _: question,
            actions=(READ, READ_TECHNICAL),
            purpose=purpose,
        )
        sees_names = desk.allows(person, READ, purpose=purpose)
        tokens = PatientTokens(
            TokenKeys(KeyStore(store.state.keys_dir), create=False), store.instance.source
        )
        people = RecordedPeople(
            store.control.snapshot().persons, lambda key: tokens.all_years(PATIENT, key)
        )
        requests = Requests(people, since=start)
        requests.read(desk.raw_entries(0, index))
        known = _known(store, in_force, again, requests.policy_sets)
        decides = Replay(again.point, again.version.schema, _source(store, in_force), known)
        if decides.reads_clock:
            requests = Requests(people, since=start, until=decides.until)
            requests.read(desk.raw_entries(0, index))
        report = replay(
            requests.tallies(),
            decides.outcome,
            candidate.hash,
            evaluations=requests.evaluations,
        )
        names = desk.names() if sees_names else {}
    if json:
        render.print_json(
            {
                "candidate": {"reference": reference, "hash": candidate.hash},
                "since": start,
                "asked_by": person.name,
                "event": index,
                "entries": requests.entries,
                "report": _report(report, with_people=sees_names),
                "names": {uid: names[uid] for uid in report.persons if uid in names},
            }
        )
    else:
        _show(report, names, reference, candidate, start, requests.entries, with_people=sees_names)
        render.console().print(
            f"Asked by {person.full_name} ({person.name}); the question is event {index} of the log."
        )
    return 1 if report.flipped else 0


def since_when(text: str | None, now: datetime) -> datetime | None:
    """The instant that ``30d``, ``12h`` or ``2026-03-02`` means."""
    if text is None:
        return None
    found = _SINCE.fullmatch(text)
    if found:
        return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        day = None
    if day is None or day.strftime("%Y-%m-%d") != text:
        raise Misconfigured("--since takes 30d, 12h, 90m or a day as 2026-03-02")
    return day


def _known(
    store: Store, in_force: Loaded, again: Loaded, wanted: Iterable[str]
) -> Mapping[str, DecisionPoint]:
    """The policies that the log was decided by, as far as they are in force or in the store."""
    known = {in_force.point.policies.hash: in_force.point}
    missing = set(wanted) - {*known, again.point.policies.hash}
    for content in store.inspect(POLICIES).shelf.versions if missing else ():
        try:
            version = open_bundle(store.store.bundle(POLICIES, content))
            if version.policies.hash in missing:
                loaded = load(version.bundle, in_force.map_bundle, {})
                known[version.policies.hash] = loaded.point
        except ChartgateError:
            continue  # a version that does not read or fit today decides nothing today
    return known


def _source(store: Store, in_force: Loaded) -> Source:
    instance = store.instance
    try:
        with (
            running(store.state.legacy_pg, instance.legacy, embedded=instance.embedded) as conninfo,
            psycopg.connect(conninfo, connect_timeout=5) as connection,
        ):
            return read_source(connection, in_force.data_map.schema)
    except psycopg.Error as exc:
        raise SourceUnavailable(
            "the source database cannot be asked which columns it has "
            f"(SQLSTATE {exc.sqlstate or 'none'})"
        ) from None


def _report(report: ReplayReport, *, with_people: bool) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(report)
    found["people"] = len(report.persons)
    for row, shown in zip(report.rows, found["rows"], strict=True):
        shown["people"] = len(row.persons)
        if not with_people:
            del shown["persons"]
    if not with_people:
        del found["persons"]
    return found


# --- on paper ----------------------------------------------------------------------------------


def _show(
    report: ReplayReport,
    names: Mapping[str, str],
    reference: str,
    candidate: Bundle,
    start: datetime | None,
    entries: int,
    *,
    with_people: bool,
) -> None:
    out = render.console()
    when = f"since {start:%Y-%m-%d %H:%M} UTC" if start else "of the whole log"
    out.print(Text(f"Recorded decisions {when} under {reference}", style="bold"))
    out.print(f"Version {candidate.hash[:12]}; {_many(entries, 'log entry', 'log entries')} read.")
    out.print()
    for flip, rows in groupby(report.rows, lambda row: row.flip):
        out.print(Text(flip[:1].upper() + flip[1:], style=_style(flip)))
        out.print(_table(tuple(rows)))
    if report.rows and with_people:
        hit = ", ".join(
            sorted(f"{names.get(uid, 'no longer known')} ({uid})" for uid in report.persons)
        )
        out.print(Text("Whom it hits: ", style="bold").append(render.plain(hit), style="not bold"))
        out.print()
    for why, count in report.apart:
        out.print(f"Not decided again: {_many(count, 'statement')} {why}.")
    if report.evaluations:
        asked = _many(report.evaluations, "question")
        out.print(
            f"Not decided again: {asked} of applications; the log does not hold what they said of "
            "the records they asked about."
        )
    if report.apart or report.evaluations:
        out.print()
    out.print(_verdict(report))


def _table(rows: Iterable[FlipRow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("Role", "Where", "Before → after"):
        table.add_column(heading, overflow="fold")
    for heading in ("Statements", "People"):
        table.add_column(heading, justify="right")
    table.add_column("First – last (UTC), first event", overflow="fold")
    for row in rows:
        after = f"{row.before} → {row.after}" + (f": {row.why}" if row.why else "")
        table.add_row(
            render.plain(", ".join(row.roles)),
            _where(row),
            render.plain(after),
            f"{row.statements:,}",
            f"{len(row.persons):,}",
            f"{row.first:%Y-%m-%d %H:%M} – {_until(row)}, {row.example}",
        )
    return table


def _until(row: FlipRow) -> str:
    same_day = row.first.date() == row.last.date()
    return f"{row.last:%H:%M}" if same_day else f"{row.last:%Y-%m-%d %H:%M}"


def _verdict(report: ReplayReport) -> Text:
    people = _many(len(report.persons), "person", "people")
    compared = report.same + report.flipped
    if not report.flipped:
        return Text(
            f"{_many(compared, 'decision')} would come out as they did; nothing flips.",
            style="bold green",
        )
    on_others = any(row.flip is Flip.ROWS for row in report.rows)
    return Text(
        f"{report.flipped:,} of {_many(compared, 'decision')} would come out otherwise, for "
        f"{people}: {report.more:,} with more access, {report.less:,} with less. "
        f"{report.same:,} would stay as they were." + (_ROWS if on_others else ""),
        style="bold red",
    )


def _where(row: FlipRow) -> str:
    columns = f": {', '.join(row.columns)}" if row.columns else ""
    return render.plain(f"{row.table or row.action}{columns}")


def _style(flip: Flip) -> str:
    return "bold red" if flip in _MORE else "bold yellow" if flip in _LESS else "bold"


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"
