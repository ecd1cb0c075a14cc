"""``chartgate explain``: why somebody may or may not, and the smallest change that would allow it.

Rules kept: shown are the values that the caller typed and those of policies and assignments; every
change that is suggested was decided by the engine before it is shown; nothing is changed.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from chartgate.app.explain import Applied, Explanation, LabelExplained, explain
from chartgate.app.explain_change import Suggestion, suggestions
from chartgate.app.explain_conjuncts import Conjunct, Verdict
from chartgate.app.explain_question import Question, check_question
from chartgate.app.explain_reduced import Known
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.policy_words import LEVELS, noun, value_words, words_of
from chartgate.cedar.text import expression_text
from chartgate.cedar.values import RecordValue
from chartgate.cli import render
from chartgate.cli.explain_inputs import (
    Asker,
    Setting,
    complete,
    labels_of,
    moment,
    record_of,
    role_person,
    setting,
)
from chartgate.cli.explain_scenario import question_of_scenario
from chartgate.cli.patient_asked import (
    check_asked,
    described,
    labels_with,
    looked_up,
    patient_words,
    rows_json,
    rows_seen,
)
from chartgate.errors import Misconfigured
from chartgate.model.disclosure import Disclosure
from chartgate.model.principal import Assignment, Person

_NEAREST = 3
_CHANGES = 6


def run_explain(
    words: Sequence[str],
    *,
    record: Sequence[str],
    purpose: str,
    at: str | None,
    role: str | None,
    reference: str | None,
    scenario: str | None,
    asker: Asker,
    full: bool,
    json: bool,
) -> int:
    """Explain one question; 0 whatever the answer, since asking went well."""
    if scenario is not None or role is not None:
        asker = replace(asker, roles=True)
    if scenario is not None and (words or role):
        raise Misconfigured("--scenario says all that is asked: give nothing else beside it")
    name = words[0] if words and role is None else None
    rest = words if role is not None else words[1:]
    if scenario is None and not 1 <= len(rest) <= 2:
        raise Misconfigured("explain takes PERSON ACTION CATEGORY, or --role ROLE ACTION CATEGORY")
    action, category = (*rest, None)[:2] if scenario is None else ("", None)
    recorded = {
        "action": str(action),
        "categories": str(category or ""),
        "purpose": purpose,
        "record": ",".join(sorted(pair.partition("=")[0] for pair in record)),
    }
    check_asked(asker.patient, str(category or ""))
    with setting(asker, "why somebody may or may not", recorded, about=name) as found:
        assumed: tuple[str, ...] = ()
        known: Known = {}
        if scenario is not None:
            person, question = question_of_scenario(scenario, found.version, moment(at))
        else:
            if role is not None:
                person = role_person(role, found.version, reference)
            elif found.of_roles:
                raise Misconfigured(
                    "there is no instance here to know people from: start `chartgate demo`, name a "
                    "--state or a file of --people, or ask with --role ROLE"
                )
            else:
                person = found.person(str(name))
            typed = record_of(record, found.version, person.name)
            known = described(typed, found.patient)
            labels = labels_with(labels_of(category), found.patient)
            whole, assumed = complete(known, found.version) if labels else ({}, ())
            when = moment(at)
            question = Question(
                action=str(action),
                labels=labels,
                purpose=purpose or _usual(found.version, person, when),
                at=when,
                record=RecordValue(whole),
                source=found.source,
                hidden=looked_up(found.patient),
            )
        if question.purpose not in found.version.roles.purposes:
            known_codes = ", ".join(sorted(found.version.roles.purposes))
            raise Misconfigured(f"{question.purpose} is not a purpose of use: {known_codes}")
        question = check_question(question, found.version.schema)
        explanation = explain(found.version, person, question)
        changes = suggestions(found.version, explanation)
        rows = rows_seen(found, person, question, known)
    if json:
        render.print_json({**_as_json(explanation, changes, found), **rows_json(found, rows)})
    else:
        _show(render.console(), explanation, changes, found, (assumed, rows), full=full)
    return 0


def _usual(version: PolicyVersion, person: Person, at: datetime) -> str:
    """The purpose that is assumed for a person who names none."""
    live = person.live(at=at) or person.assignments
    purpose = version.roles.default_purpose(live)
    if purpose is None:
        raise Misconfigured("say for which purpose: --purpose CODE")
    return purpose


# --- on paper --------------------------------------------------------------------------------


def held(assignment: Assignment) -> str:
    """An assignment in words."""
    text = assignment.role
    if assignment.department:
        text += f" in {assignment.department}"
    if assignment.reference:
        text += f" ({assignment.reference})"
    if assignment.patient:
        text += ", about one patient"
    return text


def amount(question: Question, rank: int) -> str:
    """What is reached, in words."""
    if not question.is_view:
        return "allowed" if rank else "refused"
    return LEVELS[Disclosure(rank)]


def _show(
    out: Console,
    e: Explanation,
    changes: tuple[Suggestion, ...],
    found: Setting,
    told: tuple[tuple[str, ...], tuple[str, ...]],
    *,
    full: bool,
) -> None:
    assumed, rows = told
    q = e.question
    what = f"{q.action} {'+'.join(q.labels)}".strip()
    out.print(Text(f"May {_who(e.person)} {what}, for {q.purpose}?", style="bold"))
    roles = "; ".join(held(a) for a in e.live) or "no assignment that counts now"
    out.print(f"Held at {q.at:%Y-%m-%d %H:%M} UTC: {roles}.")
    for over in e.not_live:
        out.print(f"Counts for nothing: {held(over)}, {_over(over, q.at)}.")
    said = [
        f"{noun_of(name)}: {value_words(value)}"
        for name, value in q.record.items()
        if name not in assumed and name not in q.hidden and value_words(value) != "a patient"
    ]
    if said:
        out.print(f"The record: {'; '.join(said)}.")
    if assumed:
        names = ", ".join(assumed)
        out.print(f"Nothing was said of {names}: taken as none (say it with --record KEY=VALUE).")
    for line in () if found.patient is None else patient_words(found.patient):
        out.print(line)
    out.print()
    out.print(_verdict(e))
    for line in rows:
        out.print(line)
    out.print()
    for label in e.labels:
        _show_label(out, e, label, found.version, full=full)
    _show_changes(out, e, changes, full=full)
    if found.note and not found.of_roles:
        out.print(found.note)


def noun_of(name: str) -> str:
    """A record attribute's name in words."""
    from chartgate.cedar.ast import GetAttr, Var

    return noun(GetAttr(Var("resource"), name))


def _who(person: Person) -> str:
    if person.full_name == person.name:
        return render.plain(person.name)
    if person.name == "somebody":
        return render.plain(person.full_name)
    return render.plain(f"{person.full_name} ({person.name})")


def _over(assignment: Assignment, at: datetime) -> str:
    if at < assignment.valid_from:
        return f"begins {assignment.valid_from:%Y-%m-%d %H:%M} UTC"
    if assignment.valid_until is not None and assignment.valid_until <= at:
        return f"ended {assignment.valid_until:%Y-%m-%d %H:%M} UTC"
    return "the account is closed"


def _verdict(e: Explanation) -> Text:
    rank, q = e.reached.rank, e.question
    if e.reached.refused is not None:
        return Text(f"NO: {e.reached.refused}.", style="bold red")
    if e.as_asked:
        if q.is_view:
            return Text(f"YES: she sees it {amount(q, rank)}.", style="bold green")
        return Text("YES: it is allowed.", style="bold green")
    if rank and q.is_view:
        wanted = LEVELS[Disclosure(q.wanted)]
        return Text(f"IN PART: she sees it {amount(q, rank)}, not {wanted}.", style="bold yellow")
    return Text("NO: she sees nothing." if q.is_view else "NO: it is refused.", style="bold red")


def _show_label(
    out: Console, e: Explanation, label: LabelExplained, version: PolicyVersion, *, full: bool
) -> None:
    q = e.question
    if len(e.labels) > 1:
        mark = " (this label decides)" if label.reached.rank == e.reached.rank else ""
        out.print(Text(f"{label.label}: {amount(q, label.reached.rank)}{mark}", style="bold"))
    if label.giving:
        out.print("Permitted by")
        for one in label.giving:
            _show_policy(out, one, version, only_failing=False)
    if label.reached.rank >= q.wanted:
        return
    if label.barring:
        out.print("Forbidden by" if not label.reached.rank else "More is forbidden by")
        for one in label.barring:
            _show_policy(out, one, version, only_failing=False)
    if not label.nearest:
        if not label.barring:
            out.print(f"No policy lets anybody {q.action} {label.label or ''} any further.")
            out.print()
        return
    shown = label.nearest if full else label.nearest[:_NEAREST]
    out.print("Nearest policies that would permit more, and what is missing")
    for one in shown:
        _show_policy(out, one, version, only_failing=True)
    if len(shown) < len(label.nearest):
        out.print(f"  and {len(label.nearest) - len(shown)} further off: --full shows them.")
        out.print()


def _show_policy(out: Console, one: Applied, version: PolicyVersion, *, only_failing: bool) -> None:
    policy, origin = one.policy, one.policy.origin
    clause = policy.annotation("clause")
    head = f"{policy.id}  {origin.file}:{origin.line}" + (f"  [{clause}]" if clause else "")
    out.print(Padding(Text(head, style="bold"), (0, 0, 0, 2), expand=False), soft_wrap=False)
    if one.assignment is not None and not only_failing:
        out.print(
            Padding(f"by her assignment as {held(one.assignment)}", (0, 0, 0, 4), expand=False)
        )
    conjuncts = one.failing if only_failing else one.conjuncts
    if only_failing and not conjuncts:
        out.print(Padding("all it asks is so", (0, 0, 0, 4), expand=False))
    for conjunct in conjuncts:
        _show_conjunct(out, conjunct, version)
    out.print()


_MARKS = {Verdict.HOLDS: "✓", Verdict.FAILS: "✗", Verdict.ERRS: "!"}


def _show_conjunct(out: Console, conjunct: Conjunct, version: PolicyVersion) -> None:
    words = words_of(conjunct.expr, version.roles)
    note = " (cannot be told)" if conjunct.verdict is Verdict.ERRS else ""
    out.print(Padding(f"{_MARKS[conjunct.verdict]} {words}{note}", (0, 0, 0, 4), expand=False))
    out.print(
        Padding(Text(expression_text(conjunct.expr), style="dim"), (0, 0, 0, 8), expand=False)
    )
    values = [
        f"{noun(o.expr)}: {value_words(o.value) if o.shown else 'looked up, not shown'}"
        for o in conjunct.observed
        if noun(o.expr) != "the category"
    ]
    if values:
        out.print(Padding(Text(f"= {'; '.join(values)}", style="dim"), (0, 0, 0, 8), expand=False))


def _show_changes(
    out: Console, e: Explanation, changes: tuple[Suggestion, ...], *, full: bool
) -> None:
    if e.as_asked:
        return
    if not changes:
        out.print(Text("Nothing that could be assigned or claimed would allow more.", style="bold"))
        out.print()
        return
    best = changes[0].reached.rank
    if best >= e.question.wanted:
        head = "What would allow it, smallest change first"
    else:
        head = f"Nothing would allow all of it; this would give it {amount(e.question, best)}"
    out.print(Text(head, style="bold"))
    shown = changes if full else changes[:_CHANGES]
    for number, one in enumerate(shown, start=1):
        words = "; and ".join(c.words for c in one.changes)
        out.print(Padding(f"{number}. {words}", (0, 0, 0, 2), expand=False))
        by = "; ".join(dict.fromkeys(c.by.value for c in one.changes))
        out.print(Padding(Text(by, style="dim"), (0, 0, 0, 5), expand=False))
    if len(shown) < len(changes):
        out.print(f"  and {len(changes) - len(shown)} more: --full shows them.")
    out.print("Each of these was decided again, with all policies, and allows it.")
    out.print()


# --- for programs ----------------------------------------------------------------------------


def _as_json(e: Explanation, changes: tuple[Suggestion, ...], found: Setting) -> dict[str, Any]:
    q = e.question
    return {
        "question": {
            "person": e.person.name,
            "action": q.action,
            "labels": q.labels,
            "purpose": q.purpose,
            "at": q.at,
        },
        "policy_set": found.version.policies.hash,
        "answer": amount(q, e.reached.rank),
        "as_asked": e.as_asked,
        "refused": e.reached.refused,
        "determining": e.reached.determining,
        "assignments": [held(a) for a in e.live],
        "labels": [
            {
                "label": label.label,
                "answer": amount(q, label.reached.rank),
                "giving": [_policy_json(a, found.version) for a in label.giving],
                "barring": [_policy_json(a, found.version) for a in label.barring],
                "nearest": [_policy_json(a, found.version) for a in label.nearest],
            }
            for label in e.labels
        ],
        "changes": [
            {
                "changes": [
                    {"kind": c.kind.value, "words": c.words, "by": c.by.name.lower()}
                    for c in one.changes
                ],
                "needs_approval": one.needs_approval,
                "answer": amount(q, one.reached.rank),
                "determining": one.reached.determining,
            }
            for one in changes
        ],
        "asked_by": found.asked_by,
        "event": found.event,
    }


def _policy_json(one: Applied, version: PolicyVersion) -> dict[str, Any]:
    return {
        "policy": one.policy.id,
        "effect": one.policy.effect,
        "place": str(one.policy.origin),
        "clause": one.policy.annotation("clause"),
        "assignment": None if one.assignment is None else held(one.assignment),
        "holds": one.holds,
        "conjuncts": [
            {
                "words": words_of(c.expr, version.roles),
                "cedar": expression_text(c.expr),
                "verdict": c.verdict.value,
                "values": {
                    noun(o.expr): value_words(o.value) if o.shown else None for o in c.observed
                },
            }
            for c in one.conjuncts
        ],
    }
