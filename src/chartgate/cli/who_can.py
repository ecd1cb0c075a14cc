"""``chartgate who-can``: everybody who may, with purpose, end and what ends it.

Rules kept: nobody is left out and no list is cut short; who asks is known, allowed and recorded
before a name is shown.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chartgate.app.explain_question import Question, check_question
from chartgate.app.policy_words import records_words, value_words
from chartgate.app.who_can import Ending, Holder, Holding, who_can
from chartgate.cli import render
from chartgate.cli.explain import amount, held, noun_of
from chartgate.cli.explain_inputs import (
    Asker,
    Setting,
    holders,
    labels_of,
    moment,
    record_of,
    setting,
)
from chartgate.cli.patient_asked import (
    check_asked,
    described,
    labels_with,
    looked_up,
    patient_json,
    patient_words,
)
from chartgate.model.principal import Person


def run_who_can(
    action: str,
    category: str | None,
    *,
    record: Sequence[str],
    at: str | None,
    asker: Asker,
    json: bool,
) -> int:
    """Everybody who may; always 0."""
    recorded = {
        "action": action,
        "categories": category or "",
        "record": ",".join(sorted(pair.partition("=")[0] for pair in record)),
    }
    check_asked(asker.patient, category)
    with setting(asker, "who may do something", recorded) as found:
        version = found.version
        known = described(record_of(record, version), found.patient)
        everybody = found.people or (holders(version, known) if found.of_roles else {})
        question = check_question(
            Question(
                action,
                labels_with(labels_of(category), found.patient),
                "",
                moment(at),
                source=found.source,
                hidden=looked_up(found.patient),
            ),
            version.schema,
        )
        people = sorted(everybody.values(), key=lambda p: p.name)
        able = who_can(version, people, question, known)
        # "At least in summary": less is not what was asked for.
        able = tuple(h for h in able if h.rank >= _least(question))
    if json:
        render.print_json(_as_json(able, question, found, len(people)))
        return 0
    out = render.console()
    what = f"{action} {category or ''}".strip()
    of = "" if asker.patient is None else f" of patient {render.plain(asker.patient)}"
    out.print(Text(f"Who may {what}{of}, at {question.at:%Y-%m-%d %H:%M} UTC?", style="bold"))
    said = [f"{noun_of(n)}: {value_words(v)}" for n, v in known.items() if n not in question.hidden]
    if found.patient is not None:
        for line in patient_words(found.patient):
            out.print(line)
    if said:
        out.print(f"The record: {'; '.join(said)}. What was not said is left open.")
    elif question.labels and found.patient is None:
        out.print("Any record: what it must be like is said below (--record says more about it).")
    noun = ("role", "roles") if found.of_roles else ("person", "people")
    plural = noun[len(able) != 1]
    out.print(f"{len(able)} {plural}, of {len(people)} asked for every purpose they may claim.")
    out.print()
    show_blocks(out, _blocks(able, question), question)
    if able:
        out.print(
            "Closing an account ends all of it. 'Until' is when it ends or becomes less by itself."
        )
    if found.note:
        out.print(found.note)
    return 0


def _least(question: Question) -> int:
    return 1 if question.action == "view" else question.wanted


Key = tuple[int, str, tuple[str, ...]]
Block = tuple[Key, list[tuple[Person, Holding]]]


def _blocks(able: Iterable[Holder], question: Question) -> list[Block]:
    """People by what they may, for which purposes, of which records."""
    found: dict[Key, list[tuple[Person, Holding]]] = {}
    for holder in able:
        for h in holder.holdings:
            if h.rank < _least(question):
                continue
            words = records_words(h.when, holder.person.name)
            found.setdefault((h.rank, words, h.purposes), []).append((holder.person, h))
    return sorted(found.items(), key=lambda item: (-item[0][0], item[0][2], item[0][1]))


def show_blocks(out: Console, blocks: Iterable[Block], question: Question) -> None:
    """Each block: what, for which purposes, of which records; then everybody."""
    for (rank, records, purposes), people in blocks:
        what = amount(question, rank) if question.is_view else question.action
        out.print(Text(f"{what[0].upper()}{what[1:]}", style="bold"))
        out.print(f"  for      {', '.join(purposes)}")
        if question.labels and records != "any record":
            out.print(f"  records  {records}")
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("Person", overflow="fold")
        table.add_column("Through", overflow="fold")
        table.add_column("By", overflow="fold")
        table.add_column("Until", overflow="fold")
        table.add_column("Ended by", overflow="fold")
        for person, h in people:
            table.add_row(
                render.plain(_name(person)),
                render.plain("; ".join(held(a) for a in h.through)),
                render.plain(", ".join(h.policies)),
                until(h),
                render.plain(endings(h)),
            )
        out.print(table)


def _name(person: Person) -> str:
    same = person.full_name == person.name
    return person.name if same else f"{person.full_name} ({person.name})"


def until(h: Holding) -> str:
    """When it ends by itself."""
    if h.unsteady:
        return "changes with the time"
    return "—" if h.until is None else stamp(h.until)


def stamp(at: datetime) -> str:
    """A time in few columns."""
    return f"{at:%Y-%m-%d %H:%M}"


def endings(h: Holding) -> str:
    """What takes it away, in words."""
    return " · ".join(_ending(e, h) for e in h.endings) or "closing the account"


def _ending(ending: Ending, h: Holding) -> str:
    if ending.out_of is not None:
        return f"leaving {noun_of(ending.out_of)}"
    if len(ending.assignments) > 1:
        return f"ending all of {', '.join(held(a) for a in ending.assignments)}"
    if ending.assignments == h.through:
        return "ending it"
    return f"ending {held(ending.assignments[0])}"


def holding_json(h: Holding, question: Question, herself: str) -> dict[str, Any]:
    """What somebody may, for programs."""
    return {
        "may": amount(question, h.rank),
        "purposes": h.purposes,
        "records": records_words(h.when, herself),
        "policies": h.policies,
        "through": [_assignment_json(a) for a in h.through],
        "until": h.until,
        "until_cannot_be_told": h.unsteady,
        "ended_by": [
            {"ending": [_assignment_json(a) for a in e.assignments], "leaving": e.out_of}
            for e in h.endings
        ],
    }


def _assignment_json(a: Any) -> dict[str, Any]:
    return {
        "role": a.role,
        "department": a.department,
        "reference": a.reference,
        "until": a.valid_until,
    }


def _as_json(
    able: Iterable[Holder], question: Question, found: Setting, asked: int
) -> dict[str, Any]:
    return {
        "question": {"action": question.action, "labels": question.labels, "at": question.at},
        "policy_set": found.version.policies.hash,
        "patient": patient_json(found.patient),
        "of_roles": found.of_roles,
        "asked": asked,
        "people": [
            {
                "person": holder.person.name,
                "full_name": holder.person.full_name,
                "holdings": [
                    holding_json(h, question, holder.person.name)
                    for h in holder.holdings
                    if h.rank >= _least(question)
                ],
            }
            for holder in able
        ],
        "asked_by": found.asked_by,
        "event": found.event,
    }
