"""Versions of policies on paper: who did what when, and what each stage found.

Rules kept: people by name, versions by the first twelve digits of their hash; a row that the log
does not bear out is told first; nothing that could steer a terminal is passed on.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.status import Status
from rich.table import Table
from rich.text import Text

from chartgate.adapters.policy_desk import Done
from chartgate.adapters.policy_store import NodeRow
from chartgate.app.policy_bundle import Bundle
from chartgate.app.policy_orders import Logged
from chartgate.app.policy_shelf import Inspected
from chartgate.app.policy_stages import Evidence, Stage
from chartgate.govern.policy_version import Shelf, State, Step, Version
from chartgate.model.event import PolicyStep

Names = Mapping[str, str]
Taken = Sequence[tuple[NodeRow, float | None]]

_COLOURS = {
    State.ACTIVE: "bold green",
    State.APPROVED: "green",
    State.COMPARED: "yellow",
    State.REFUSED: "red",
    State.WITHDRAWN: "dim",
    State.SUPERSEDED: "dim",
}


def plain(text: str) -> str:
    """Without what could steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "·" for c in text)


class Progress:
    """The stages of a push, one line each; silent without a console."""

    def __init__(self, out: Console | None) -> None:
        self._out = out
        self._since = 0.0
        self._status: Status | None = None

    def begin(self, subject: str, bundle: Bundle) -> None:
        """What is pushed."""
        if self._out is not None:
            self._out.print(f"{subject} {bundle.hash[:12]}: {len(bundle.files)} files")

    def __call__(self, stage: Stage, evidence: Evidence | None) -> None:
        """A stage begins (no evidence yet), or ends."""
        if evidence is None:
            self._since = time.monotonic()
            if self._out is not None and self._out.is_terminal:
                self._status = self._out.status(f"{stage.title} …")
                self._status.start()
            return
        self.stop()
        if self._out is None:
            return
        took = time.monotonic() - self._since
        mark = Text("ok    ", "green") if evidence.passed else Text("FAILED", "bold red")
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True, style="dim")
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(f"{took:6.1f} s", mark, f"{stage.title}: {plain(evidence.summary)}")
        for told in evidence.report.get("lines", ()):
            text = plain(str(told))
            inner = text.lstrip(" ")
            grid.add_row("", "", Padding(Text(inner), (0, 0, 0, 2 + len(text) - len(inner))))
        self._out.print(grid)

    def stop(self) -> None:
        """Nothing is being done any more."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def end(self, done: Done) -> None:
        """All stages are passed."""
        if self._out is not None:
            content = done.event.content[:12]
            self._out.print()
            self._out.print(
                f"{content} is {done.state}. Somebody else looks at it and approves it:"
            )
            self._out.print(f"  chartgate policy show {content}", soft_wrap=True)
            self._out.print(f"  chartgate policy approve {content} --as PERSON", soft_wrap=True)


def show_versions(out: Console, inspected: Mapping[str, Inspected], names: Names) -> None:
    """All subjects, newest version first."""
    for subject, one in inspected.items():
        for doubt in one.doubts:
            line = Text("NOT BORNE OUT  ", style="bold red")
            line.append(
                plain(
                    f"{subject} {doubt.content[:12]} {doubt.step} (row {doubt.row}): {doubt.reason}"
                ),
                style="not bold",
            )
            out.print(line)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("What", "Version", "State", "Proposed by", "Approved by", "Last step (UTC)"):
        # What is copied into the next command is never broken.
        table.add_column(heading, overflow="fold", no_wrap=heading in {"What", "Version"})
    for subject, one in inspected.items():
        ordered = sorted(one.shelf.versions.values(), key=lambda v: v.steps[-1].at, reverse=True)
        for version in ordered:
            table.add_row(
                plain(subject),
                version.content[:12],
                Text(_state(version), style=_COLOURS.get(version.state, "")),
                _names(version.proposers, names),
                _names((version.approver,), names),
                _minute(version.steps[-1].at),
            )
    out.print(table)


def show_version(
    out: Console,
    subject: str,
    shelf: Shelf,
    version: Version,
    steps: Sequence[Logged],
    reports: Mapping[int, Any],
    names: Names,
) -> None:
    """One version with everything that was done to it."""
    head = Text(f"{subject} ").append(version.content, style="bold")
    out.print(head, soft_wrap=True)
    out.print(f"{_state(version)}; proposed by {_names(version.proposers, names)}")
    if version.content == shelf.active:
        out.print(f"in force, generation {shelf.generation}")
    out.print()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("Event", "When (UTC)", "Step", "By", "What came of it"):
        table.add_column(
            heading, overflow="fold", justify="right" if heading == "Event" else "left"
        )
    for one in steps:
        detail = one.event.detail
        words = [detail[k] for k in ("summary", "note", "reason") if detail.get(k)]
        if "bootstrap" in detail:
            words.append(f"by the program, as it shipped ({detail['bootstrap']})")
        table.add_row(
            str(one.index),
            _minute(one.event.at),
            _step(one.event, version.content),
            _names((one.event.person,), names),
            plain("; ".join(words)),
        )
    out.print(table)
    for one in steps:
        report = reports.get(one.index)
        if one.event.step == Step.COMPARED and isinstance(report, Mapping):
            out.print()
            out.print(Text("What would change", style="bold"))
            for line in report.get("lines", ()):
                out.print(plain(str(line)))
            for path, word in report.get("files", {}).items():
                out.print(plain(f"  {word}: {path}"))


def show_done(out: Console, done: Done, taken: Taken | None) -> None:
    """A step that was taken."""
    event = done.event
    out.print(
        f"{event.subject} {event.content[:12]} is {done.state}; event {done.index} of the log."
    )
    for node, seconds in taken or ():
        said = "has not answered" if seconds is None else f"decides by it after {seconds:.2f} s"
        out.print(f"  node {plain(node.node)} {said}")
    if taken is not None and not taken:
        out.print("  No node has reported yet: each takes it when it runs.")
    if event.step == Step.APPROVED:
        out.print(f"  chartgate policy activate {event.content[:12]} --as PERSON", soft_wrap=True)


def show_status(
    out: Console, shelves: Mapping[str, Shelf], nodes: Sequence[NodeRow], *, is_up: bool
) -> None:
    """What each node has in force; ``is_up``: whether this computer's own node runs."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("Node", "What", "Version", "Generation", "Since (UTC)", ""):
        table.add_column(heading, overflow="fold")
    for node in nodes:
        shelf = shelves.get(node.subject)
        behind = shelf is None or shelf.active != node.content
        table.add_row(
            plain(node.node),
            plain(node.subject),
            plain(node.content[:12]),
            str(node.generation),
            _minute(node.since.isoformat()),
            Text("BEHIND", style="bold red") if behind else Text("as ordered", style="green"),
        )
    out.print(table)
    out.print("As the nodes themselves report; their logs hold each change (policy_in_force).")
    if not is_up:
        out.print(
            Text("The gate of this folder is not running: ", style="bold yellow").append(
                "this is what it decided by last.", style="not bold"
            )
        )


def versions_json(one: Inspected, names: Names) -> dict[str, Any]:
    """A subject's versions."""
    return {
        "in_force": one.shelf.active,
        "generation": one.shelf.generation,
        "versions": [
            {
                "hash": version.content,
                "state": version.state,
                "shipped": version.is_shipped,
                "proposed_by": [names.get(uid, uid) for uid in version.proposers],
                "approved_by": names.get(version.approver, version.approver) or None,
                "at": version.steps[-1].at,
            }
            for version in one.shelf.versions.values()
        ],
        "not_in_the_log": [
            {"row": d.row, "hash": d.content, "step": d.step, "reason": d.reason}
            for d in one.doubts
        ],
    }


def version_json(
    subject: str,
    shelf: Shelf,
    version: Version,
    steps: Sequence[Logged],
    reports: Mapping[int, Any],
    names: Names,
) -> dict[str, Any]:
    """One version with its steps and reports."""
    return {
        "subject": subject,
        "hash": version.content,
        "state": version.state,
        "in_force": version.content == shelf.active,
        "steps": [
            {
                "event": one.index,
                "log": one.log,
                "at": one.event.at,
                "step": one.event.step,
                "by": names.get(one.event.person, one.event.person),
                "detail": one.event.detail,
                "report": reports.get(one.index),
            }
            for one in steps
        ],
    }


def done_json(done: Done, taken: Taken | None) -> dict[str, Any]:
    """A step that was taken."""
    answer: dict[str, Any] = {
        "subject": done.event.subject,
        "hash": done.event.content,
        "state": done.state,
        "event": done.index,
    }
    if taken is not None:
        answer["generation"] = done.event.generation
        answer["nodes"] = [{"node": n.node, "seconds": seconds} for n, seconds in taken]
    return answer


def node_json(node: NodeRow, shelf: Shelf | None) -> dict[str, Any]:
    """What a node has in force."""
    return {
        "node": node.node,
        "subject": node.subject,
        "hash": node.content,
        "generation": node.generation,
        "since": node.since,
        "as_ordered": shelf is not None and node.content == shelf.active,
    }


def is_reported(event: PolicyStep, report: str) -> bool:
    """Whether a stored report is the one whose hash the log holds."""
    return hashlib.sha256(report.encode()).hexdigest() == event.detail.get("report")


def _step(event: PolicyStep, content: str) -> str:
    words = event.step.replace("_", " ")
    return words if event.content == content else f"replaced: {event.content[:12]} {words}"


def _state(version: Version) -> str:
    return f"{version.state} (as shipped)" if version.is_shipped else str(version.state)


def _names(uids: Sequence[str], names: Names) -> str:
    return plain(", ".join(names.get(uid, uid) for uid in uids))


def _minute(at: str) -> str:
    return at[:16].replace("T", " ")
