"""``chartgate policy coverage``: which policies decided nothing, over the scenarios or the log.

Rules kept: reading the log is asked, allowed and recorded first; every policy is listed, used or not.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chartgate.adapters.audit_desk import READ, READ_TECHNICAL, AuditDesk
from chartgate.app.coverage import Coverage, PolicyUse, Recorded, over_log, over_scenarios
from chartgate.app.policy_bundle import open_bundle, scenarios_of
from chartgate.app.scenarios import run
from chartgate.cli import render
from chartgate.cli.policy_refs import bundle_of
from chartgate.cli.policy_replay import since_when
from chartgate.cli.sign_in import password_of
from chartgate.demo.shipped import shipped
from chartgate.errors import Misconfigured
from chartgate.model.event import AuditRead, Decision, Event


def run_coverage(
    reference: str | None,
    *,
    log: bool,
    since: str | None,
    state: Path | None,
    as_: str | None,
    purpose: str,
    unused: bool,
    json: bool,
) -> int:
    """Which policies decided something; 1 when one decided nothing over the scenarios."""
    now = datetime.now(UTC)
    if since is not None and not log:
        raise Misconfigured("--since goes with --log: scenarios have no time")
    if not log:
        version = open_bundle(bundle_of(reference or str(shipped("policies")), state))
        results = run(scenarios_of(version.bundle), version.policies, version.roles, now)
        found = over_scenarios(results, version.policies)
        _tell(found, log=False, since=None, note=None, unused=unused, json=json)
        # Over the log it is no finding: some policies are for what seldom happens.
        return 1 if found.unused else 0
    start = since_when(since, now)
    found, note = _over_log(reference, start, state=state, as_=as_, purpose=purpose)
    _tell(found, log=True, since=start, note=note, unused=unused, json=json)
    return 0


def _over_log(
    reference: str | None,
    start: datetime | None,
    *,
    state: Path | None,
    as_: str | None,
    purpose: str,
) -> tuple[Coverage, str]:
    from chartgate.cli.policy_store import opened

    with opened(state) as store:
        loaded = store.loaded()
        who = as_ or store.instance.auditor
        if not who:
            raise Misconfigured("say who you are: --as PERSON")
        version = loaded.version
        if reference is not None:
            version = open_bundle(bundle_of(reference, state))
        desk = AuditDesk(store.state, store.instance, loaded.point, store.control.snapshot)
        person = desk.sign_in(who, password_of(store.state, who))
        question = {"policy_set": version.policies.hash}
        question |= {"since": start.isoformat()} if start else {}
        index = desk.ask(
            person,
            "which policies decided something",
            lambda _: question,
            actions=(READ, READ_TECHNICAL),
            purpose=purpose,
        )
        found = over_log(_decisions(desk.entries(0, index), start), version.policies)
    return found, (
        f"Asked by {person.full_name} ({person.name}); the question is event {index} of the log."
    )


def _decisions(entries: Iterable[tuple[int, Event]], start: datetime | None) -> Iterator[Recorded]:
    for _, event in entries:
        if isinstance(event, Decision | AuditRead):
            at = datetime.fromisoformat(event.at)
            if start is None or at >= start:
                yield Recorded(at, event.policy_set, event.determining)


def _tell(
    found: Coverage,
    *,
    log: bool,
    since: datetime | None,
    note: str | None,
    unused: bool,
    json: bool,
) -> None:
    if json:
        render.print_json(_as_json(found, log=log, since=since, note=note))
        return
    out = render.console()
    what = "recorded decisions" if log else "scenarios"
    when = f" since {since:%Y-%m-%d %H:%M} UTC" if since else ""
    out.print(Text(f"Policies over {found.asked} {what}{when}", style="bold"))
    out.print()
    shown = found.unused if unused else found.policies
    if shown:
        _policies(out, shown, log=log)
    if not unused:
        _clauses(out, found)
    if found.unknown:
        names = ", ".join(f"{name} ({count})" for name, count in found.unknown.items())
        out.print(f"Named in the log, but not of these policies: {names}.")
        out.print()
    silent = found.unused
    permits = sum(1 for p in silent if p.effect == "permit")
    total = len(found.policies)
    if silent:
        out.print(
            Text(f"{len(silent)} of {total} policies decided nothing", style="bold yellow").append(
                f" ({permits} permits, {len(silent) - permits} forbids): "
                f"{', '.join(p.id for p in silent)}.",
                style="not bold",
            )
        )
    else:
        out.print(Text(f"All {total} policies decided something.", style="bold green"))
    if note:
        out.print(note)


def _policies(out: Console, policies: Iterable[PolicyUse], *, log: bool) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Policy", overflow="fold")
    table.add_column("Effect")
    table.add_column("Decided" if log else "Scenarios", justify="right")
    table.add_column("Last" if log else "Such as", overflow="fold")
    if log:
        table.add_column("Under others", justify="right")
    for one in policies:
        count = Text(str(one.count), style="" if one.count else "bold yellow")
        if log:
            last = f"{one.last:%Y-%m-%d %H:%M}" if one.last else "never"
            table.add_row(one.id, one.effect, count, last, str(one.elsewhere or ""))
        else:
            table.add_row(one.id, one.effect, count, one.titles[0] if one.titles else "none")
    out.print(table)


def _clauses(out: Console, found: Coverage) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Clause", overflow="fold")
    for heading in ("Policies", "of them used", "Times"):
        table.add_column(heading, justify="right")
    for one in found.clauses:
        table.add_row(one.clause, str(one.policies), str(one.used), str(one.count))
    out.print(table)


def _as_json(
    found: Coverage, *, log: bool, since: datetime | None, note: str | None
) -> dict[str, Any]:
    return {
        "over": "log" if log else "scenarios",
        "since": since,
        "asked": found.asked,
        "policies": found.policies,
        "unused": [p.id for p in found.unused],
        "clauses": found.clauses,
        "unknown": found.unknown,
        "note": note,
    }
