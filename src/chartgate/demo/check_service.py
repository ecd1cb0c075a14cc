"""What must be true of the demo's decision service: asked over HTTPS as applications ask it.

Rule kept: what an application is told is what the same person is shown through the gate, every answer
is in the log under the number that it names, and a token that is revoked opens nothing a second later.
"""

import http.client
import json
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from chartgate.demo.applications import ADMINISTRATOR, ASKER
from chartgate.demo.check_rules import Findings, Outcome
from chartgate.demo.check_visit import Visitor, audit, environment

_SECONDS: Final = 20
_CUT_SECONDS: Final = 1.0
_ROTATED: Final = "analytics"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the service answered."""

    status: int
    body: dict[str, Any]

    @property
    def context(self) -> dict[str, Any]:
        found = self.body.get("context")
        return found if isinstance(found, dict) else {}

    @property
    def event(self) -> int | None:
        """The entry of the log that it names."""
        index = self.context.get("audit", {}).get("index")
        return index if isinstance(index, int) else None


def ask(f: Findings, person: str, action: str, category: str, *, token: str = "") -> Reply:
    """One question about the demo's patient."""
    state = f.ready.state
    where = urlsplit(state.instance().decisions)
    trust = ssl.create_default_context(cafile=state.authority)
    link = http.client.HTTPSConnection(
        where.hostname or "", where.port, timeout=_SECONDS, context=trust
    )
    asked = {"patient": f.subject.key, "category": category}
    question = {
        "subject": {"type": "User", "id": person},
        "action": {"name": action},
        "resource": {"type": "Record", "id": f.subject.key, "properties": asked},
    }
    sent = token or state.token_file(ASKER).read_text("ascii").strip()
    headers = {"Authorization": f"Bearer {sent}", "Content-Type": "application/json"}
    try:
        link.request("POST", "/access/v1/evaluation", json.dumps(question), headers)
        answer = link.getresponse()
        body = json.loads(answer.read())
    finally:
        link.close()
    return Reply(answer.status, body)


def _application_is_told_what_the_gate_shows(f: Findings) -> Outcome:
    y, key = f.layout, f.subject.key
    query = f"SELECT {y.lab_value} FROM {y.labs} WHERE {y.lab_patient}::text = "
    whole = sorted(str(row[0]) for row in f.truth(f"{query}%s", key))
    told = {}
    for name in f.visitors:
        level = told[name] = ask(f, name, "view", "labs").context.get("levels", {}).get("labs")
        visitor = Visitor(f.ready, f.port, name)
        answer = visitor.ask(f"{query}'{key}'")  # refused where she may see nothing of the table
        visitor.leave()
        shown = [] if answer.sqlstate else [v for (v,) in answer.rows if v is not None]
        if level == "full" and sorted(map(str, shown)) != whole:
            seen = f"{len(shown)} of {len(whole)} through the gate {answer.sqlstate}"
            return f"{name}: full to applications, {seen} {answer.message}".rstrip()
        if level != "full" and set(map(str, shown)) & set(whole):
            return f"{name}: {level} to applications, but the gate showed a value"
        if level == "withheld" and shown:
            return f"{name}: withheld from applications, but the gate showed {len(shown)} rows"
    if told["mwelby"] != "full" or told["rpatel"] != "withheld":
        return f"the physician was told {told['mwelby']}, the receptionist {told['rpatel']}"
    return None


def _refusal_has_a_reason(f: Findings) -> Outcome:
    told = ask(f, "rpatel", "view", "labs")
    reason = told.context.get("reason", {})
    if told.status != 200 or told.body.get("decision") is not False:
        return f"the receptionist's question was answered {told.status}"
    if not reason.get("text") or not reason.get("clauses"):
        return "the refusal says no reason, or cites no clause"
    return None


def _every_answer_is_on_record(f: Findings) -> Outcome:
    events = [ask(f, name, "view", "labs").event for name in f.visitors]
    named = [event for event in events if event is not None]
    if len(named) != len(events) or len(set(named)) != len(named):
        return f"{len(events)} answers name {len(set(named))} entries of the log"
    rows = audit(f.ready, "tail", "-n", "200").report.get("events", [])
    kinds = {row.get("index"): row.get("kind") for row in rows}
    missing = [event for event in named if kinds.get(event) != "evaluation"]
    return f"events {missing} are no evaluations in the log" if missing else None


def _revoked_token_is_refused(f: Findings) -> Outcome:
    f.progress("replacing an application's token, and revoking it")
    with tempfile.TemporaryDirectory(prefix="chartgate-token-") as folder:
        file = Path(folder) / "token"
        made = _service(f, "token", _ROTATED, "--out", str(file))
        token = file.read_text("ascii").strip()
    if _until(lambda: ask(f, "nadams", "view_summary", "labs", token=token).status == 200) is None:
        return "a new token is not taken within a second"
    _service(f, "revoke", str(made["id"]))
    if _until(lambda: ask(f, "nadams", "view_summary", "labs", token=token).status == 401) is None:
        return "a revoked token is still taken after a second"
    return None


def _until(reached: Callable[[], bool]) -> float | None:
    """Seconds until it is so; None if it is not within one."""
    began = time.monotonic()
    while not reached():
        if time.monotonic() - began > _CUT_SECONDS:
            return None
        time.sleep(0.02)
    return time.monotonic() - began


def _service(f: Findings, *arguments: str) -> dict[str, Any]:
    """Run ``chartgate service … --json`` as the security officer would."""
    done = subprocess.run(  # noqa: S603 (this program, no shell)
        [sys.executable, "-P", "-m", "chartgate", "service", *arguments, "--json",
         "--as", ADMINISTRATOR, "--state", str(f.ready.state.root)],
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=3 * _SECONDS,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"service {arguments[0]}: {done.stderr.strip()[:200]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


RULES: tuple[tuple[str, Callable[[Findings], Outcome]], ...] = (
    (
        "an application is told for each of the six what the gate shows them",
        _application_is_told_what_the_gate_shows,
    ),
    ("an application is told why the receptionist may not, with its clause", _refusal_has_a_reason),
    ("each answer to an application is in the log under the number it names", _every_answer_is_on_record),
    ("an application's token is replaced, and revoked within a second", _revoked_token_is_refused),
)  # fmt: skip
