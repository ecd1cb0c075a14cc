"""What a version must pass before people are asked to approve it, in order.

The rules kept (45 CFR 164.308(a)(8): evaluation in response to changes): a stage that fails ends
the walk with its reason and the version stays a draft; each stage leaves a report that the approver
reads, and whose hash is in the log. The comparison never fails: it shows what would change, and a
person judges it.

- ``validated``: reads strictly, can be enforced as row filters with the map and catalog in force;
  no role that somebody holds is gone; after it, two people can still change the policies again.
- ``scenarios_passed``: every scenario of the version holds.
- ``invariants_proved``: every invariant of the version is proved, for all requests.
- ``compared``: what is newly allowed or denied, and what of the recorded past would flip.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from chartgate.app.ceilings import Cell as CeilingCell
from chartgate.app.entitlement import STORE_STEPS, DecisionPoint
from chartgate.app.lint import Severity, lint
from chartgate.app.map_bundle import open_map
from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle, scenarios_of
from chartgate.app.policy_diff import Cell, policy_diff
from chartgate.app.proof_diff import Comparison
from chartgate.app.prove import Proof, prove_version
from chartgate.app.replay import Flip
from chartgate.app.replay_report import ReplayReport
from chartgate.app.scenarios import run, unused
from chartgate.app.session_views import Source
from chartgate.datamap.model import DataMap
from chartgate.errors import ChartgateError, Refused
from chartgate.govern.policy_version import POLICIES, Step
from chartgate.model.disclosure import VIEW_ACTIONS
from chartgate.model.principal import Person

_TIMEOUT: Final = 10.0
"""Seconds for each question to the prover; what is not decided by then is not proved."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version, and everything it is held against."""

    subject: str
    bundle: Bundle
    in_force: Bundle | None
    """The version that this one would replace."""
    version: PolicyVersion
    """The policies in force."""
    data_map: DataMap
    """The data map in force."""
    people: tuple[Person, ...]
    at: datetime
    source: Source | None = None
    """The live catalog; ``None`` when the source cannot be asked."""
    replay: Callable[[], ReplayReport] | None = None
    """Decides the recorded past again; raises when that cannot be, or may not."""
    clock: Callable[[], float] = lambda: 0.0
    """Seconds, for telling how long a proof took."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a stage came to: for a person in one line, and in full."""

    passed: bool
    summary: str
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: the step it earns."""

    step: Step
    title: str
    run: Callable[[Candidate], Evidence]


def stages_of(subject: str) -> tuple[Stage, ...]:
    """The stages of a subject, in order."""
    return POLICY_STAGES if subject == POLICIES else MAP_STAGES


def examine(stage: Stage, candidate: Candidate) -> Evidence:
    """Run a stage; a fault of the version is evidence too."""
    try:
        return stage.run(candidate)
    except ChartgateError as exc:
        return Evidence(False, " ".join(str(exc).split()), {"fault": str(exc), "code": exc.code})


# --- validated -------------------------------------------------------------------------------


def _validate(candidate: Candidate) -> Evidence:
    version = open_bundle(candidate.bundle)
    point = DecisionPoint(version.policies, version.schema, version.roles, candidate.data_map)
    if candidate.source is not None:
        point.check_columns(candidate.source.tables)
    missing = sorted(
        {a.role for p in candidate.people for a in p.live(at=candidate.at)}
        - set(version.roles.roles)
    )
    if missing:
        return Evidence(
            False,
            f"somebody holds the role {', '.join(missing)}, which this version does not have",
            {"missing_roles": missing},
        )
    stuck = _stuck(candidate, point)
    if stuck:
        return Evidence(False, stuck, {"stuck": stuck})
    findings = lint(version, today=candidate.at.date())
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        told = [str(finding) for finding in findings]
        return Evidence(False, str(errors[0]), {"findings": told})
    policies, roles = version.policies.policies, version.roles.roles
    return Evidence(
        True,
        f"{len(policies)} policies and {len(roles)} roles, strictly valid and enforceable"
        + (f"; policy lint has {_remarks(len(findings))}" if findings else ""),
        {
            "policies": len(policies),
            "roles": len(roles),
            "policy_set": version.policies.hash,
            "findings": [str(finding) for finding in findings],
        },
    )


def _remarks(count: int) -> str:
    return "1 remark" if count == 1 else f"{count} remarks"


def _stuck(candidate: Candidate, point: DecisionPoint) -> str:
    """Why nobody could change the policies again after this version; empty when somebody can."""
    able: dict[str, set[str]] = {
        action: {
            person.uid
            for person in candidate.people
            if person.active and _may(point, person, action, candidate.at)
        }
        for action in sorted(STORE_STEPS)
    }
    if not able["activate_policy"]:
        return "after this version nobody could put another one in force or roll it back"
    if not any(
        proposer != approver
        for proposer in able["edit_policy"]
        for approver in able["approve_policy"]
    ):
        return "after this version there would not be two people to propose and approve another"
    return ""


def _may(point: DecisionPoint, person: Person, action: str, at: datetime) -> bool:
    live = person.live(at=at)
    try:
        asker = point.asker(person, point.roles.default_purpose(live) or "", at=at)
    except Refused:
        return False
    return point.may(asker, action, at=at).allowed


# --- scenarios and invariants --------------------------------------------------------------------


def _test(candidate: Candidate) -> Evidence:
    version = open_bundle(candidate.bundle)
    results = run(scenarios_of(candidate.bundle), version.policies, version.roles, candidate.at)
    failed = [result.message for result in results if not result.passed]
    report = {
        "scenarios": len(results),
        "failed": failed,
        "untested": unused(results, version.policies),
    }
    if failed:
        report["lines"] = failed
        return Evidence(False, f"{len(failed)} of {len(results)} do not hold", report)
    return Evidence(True, f"{len(results)} scenarios, all as expected", report)


def _prove(candidate: Candidate) -> Evidence:
    found = prove_version(
        open_bundle(candidate.bundle), now=candidate.at, clock=candidate.clock, timeout=_TIMEOUT
    )
    if not found.proofs:
        return Evidence(False, "no invariant: nothing says what must hold for everybody", {})
    report = {
        "invariants": [
            {"id": p.invariant.id, "verdict": p.verdict, "claimed": p.claimed, "why": p.why}
            for p in found.proofs
        ],
        "ceilings": len(found.cells),
        "ceilings_not_proved": [
            {"role": c.role, "category": c.category, "verdict": c.verdict, "why": c.why}
            for c in found.cells
            if c.verdict != "proved"
        ],
    }
    if found.passed:
        return Evidence(True, found.summary, report)
    open_ = [f"{p.invariant.id} is {p.verdict}: {p.why}" for p in found.proofs if _is_open(p)]
    open_ += [
        f"{c.role}, {c.category}, at most {c.ceiling.label}, is {c.verdict}: {c.why}"
        for c in found.cells
        if _is_open(c)
    ]
    claims = len(found.proofs) + len(found.cells)
    return Evidence(False, f"{len(open_)} of {claims} are not proved", {**report, "lines": open_})


def _is_open(claim: Proof | CeilingCell) -> bool:
    return claim.verdict != "proved"


# --- comparison ----------------------------------------------------------------------------------


def _compare(candidate: Candidate) -> Evidence:
    report: dict[str, Any] = {"files": _files(candidate)}
    lines, summary = _changes(candidate, report)
    told = _replayed(candidate, report)
    return Evidence(True, f"{summary}; {told}", {**report, "lines": lines})


def _changes(candidate: Candidate, report: dict[str, Any]) -> tuple[list[str], str]:
    """What is newly allowed or denied, proved or shown by example."""
    if candidate.in_force is None:
        return [], "nothing was in force before"
    if candidate.subject != POLICIES:
        words = [f"{path} {word}" for path, word in _files(candidate).items()]
        return [], ", ".join(words) or "no file differs"
    before, after = open_bundle(candidate.in_force), open_bundle(candidate.bundle)
    diff = policy_diff(
        before,
        after,
        lambda: Comparison(before, after, now=candidate.at, timeout=_TIMEOUT),
    )
    report["facts"] = [
        {"part": f.part, "name": f.name, "change": f.change, "detail": f.detail}
        for f in diff.facts.facts
    ]
    report["cells"] = len(diff.cells)
    report["changed"] = [
        {"role": c.role, "action": c.action, "category": c.category, "verdict": c.verdict}
        for c in diff.changed
    ]
    lines = [line for cell in _told_once(diff.changed) for line in _cell(cell, after)]
    if diff.is_same:
        return lines, "no answer changes"
    counts = Counter(cell.verdict for cell in diff.changed)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return lines, f"of {len(diff.cells):,} combinations of role, action and category {told}"


def _told_once(cells: Iterable[Cell]) -> list[Cell]:
    """Without the lower levels of a cell whose change is told already: they come with it."""
    told: dict[object, Cell] = {}
    for cell in cells:
        moves = [(s.before, s.after) if s else None for s in (cell.more, cell.less)]
        is_level = cell.action in VIEW_ACTIONS.values()
        told.setdefault((cell.role, cell.category, not is_level and cell.action, *moves), cell)
    return list(told.values())


def _cell(cell: Cell, after: PolicyVersion) -> list[str]:
    what = f"{cell.role}, {cell.action}" + (f" {cell.category}" if cell.category else "")
    lines = [f"{cell.verdict}: {what}" + (f" ({cell.why})" if cell.why else "")]
    for shown in (cell.more, cell.less):
        if shown is not None:
            words = shown.example.words(after.policies, after.roles)
            lines.append(f"    {shown.before} becomes {shown.after}: {words}")
    return lines


def _replayed(candidate: Candidate, report: dict[str, Any]) -> str:
    """What of the recorded past would have been otherwise; counts and roles, no names."""
    if candidate.replay is None:
        return "the recorded past was not replayed"
    try:
        found = candidate.replay()
    except ChartgateError as exc:
        report["replay"] = {"fault": str(exc)}
        return f"the recorded past was not replayed: {exc}"
    report["replay"] = {
        "decisions": found.decisions,
        "same": found.same,
        "flipped": found.flipped,
        "more": found.more,
        "less": found.less,
        "people": len(found.persons),
        "apart": {str(why): count for why, count in found.apart},
        "rows": [
            {
                "flip": row.flip,
                "roles": row.roles,
                "table": row.table,
                "columns": row.columns,
                "before": row.before,
                "after": row.after,
                "statements": row.statements,
                "people": len(row.persons),
            }
            for row in found.rows
        ],
    }
    if not found.flipped:
        return f"none of {found.same:,} recorded decisions would differ"
    people = "1 person" if len(found.persons) == 1 else f"{len(found.persons):,} people"
    told = (
        f"{found.flipped:,} of {found.same + found.flipped:,} recorded decisions would differ, for "
        f"{people}: {found.more:,} would have shown or changed more, {found.less:,} less"
    )
    on_others = any(row.flip is Flip.ROWS for row in found.rows)
    return told + ("; some would have met other rows" if on_others else "")


def _files(candidate: Candidate) -> dict[str, str]:
    before = {} if candidate.in_force is None else dict(candidate.in_force.files)
    after = candidate.bundle.files
    words = {}
    for path in sorted({*before, *after}):
        if before.get(path) != after.get(path):
            words[path] = (
                "added" if path not in before else "removed" if path not in after else "changed"
            )
    return words


# --- data maps -------------------------------------------------------------------------------


def _validate_map(candidate: Candidate) -> Evidence:
    data_map = open_map(candidate.bundle, candidate.version.schema)
    version = candidate.version
    point = DecisionPoint(version.policies, version.schema, version.roles, data_map)
    if candidate.source is not None:
        point.check_columns(candidate.source.tables)
    absent = _absent(data_map, candidate.source)
    if absent:
        return Evidence(False, f"the source has no {absent[0]}", {"absent": absent})
    columns = sum(len(table.columns) for table in data_map.tables.values())
    checked = "" if candidate.source is None else ", all of them in the source"
    return Evidence(
        True,
        f"{len(data_map.tables)} tables, {columns} columns, strictly read{checked}",
        {"tables": len(data_map.tables), "columns": columns, "data_map": data_map.hash},
    )


def _absent(data_map: DataMap, source: Source | None) -> list[str]:
    if source is None:
        return []
    live = {
        name.name: {column.name for column in table.columns}
        for name, table in source.tables.items()
        if name.schema == data_map.schema
    }
    found = [f"table {name}" for name in data_map.tables if name not in live]
    for name, table in data_map.tables.items():
        found += [
            f"column {name}.{c}" for c in table.columns if name in live and c not in live[name]
        ]
    return sorted(found)


POLICY_STAGES: Final = (
    Stage(Step.VALIDATED, "read and checked", _validate),
    Stage(Step.TESTED, "scenarios", _test),
    Stage(Step.PROVED, "invariants", _prove),
    Stage(Step.COMPARED, "compared with what is in force", _compare),
)
MAP_STAGES: Final = (
    Stage(Step.VALIDATED, "read and checked", _validate_map),
    Stage(Step.COMPARED, "compared with what is in force", _compare),
)
