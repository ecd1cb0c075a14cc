"""What went through applications, as blocks of an audit answer: rows and their details, in words."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from rich.text import Text

from chartgate.app.audit_evaluations import ApplicationReport, EvaluationRow, SearchRow

Names = Mapping[str, str]
Block = tuple[str, Sequence[str], Iterator[tuple[Sequence[str | Text], Sequence[tuple[str, str]]]]]
"""Title, headings, and for each entry its cells and details."""

_LEVELS = ("full", "summary", "masked", "withheld")
_UNASKED = "out_of_scope"


def blocks(
    report: ApplicationReport,
    names: Names,
    when: Callable[[datetime], str],
    zone: str,
    *,
    about_patient: bool,
) -> Iterator[Block]:
    """The blocks to show; none when nothing went through applications."""
    heads = ("Event", f"Time ({zone})", "Person", "Outcome")
    about = " about this patient" if about_patient else ""
    if report.accesses:
        rows = report.accesses
        # what it then did with it is not in this log
        yield (
            f"What applications could show{about}",
            heads,
            _entries(rows, names, when, about_patient),
        )
    if report.attempts:
        rows = report.attempts
        title = f"Denied to applications{', questions' + about if about else ''}"
        yield title, heads, _entries(rows, names, when, about_patient)
    if report.searches:
        title = "Searches by applications" + (" that concern this patient" if about else "")
        yield title, heads, _searches(report.searches, names, when)


def _entries(
    rows: Sequence[EvaluationRow],
    names: Names,
    when: Callable[[datetime], str],
    about_patient: bool,
) -> Iterator[tuple[Sequence[str | Text], Sequence[tuple[str, str]]]]:
    for row in rows:
        yield (
            (str(row.index), when(row.at), _person(row, names), _outcome(row)),
            (
                # of a name that nobody has: the same token (of a year) is the same name
                ("named", f"token {row.subject}" if row.subject and not row.person else ""),
                ("as", _role(row)),
                ("asked", _asked(row, about_patient)),
                ("by", f"{names.get(row.service, row.service)} ({row.channel})"),
                ("shown" if row.disclosed else "levels", _levels(row)),
                ("recipient", row.recipient),
                ("reason", row.reason.replace("_", " ")),
                ("policies", ", ".join(dict.fromkeys((*row.determining, *row.grants)))),
            ),
        )


def _searches(
    rows: Sequence[SearchRow], names: Names, when: Callable[[datetime], str]
) -> Iterator[tuple[Sequence[str | Text], Sequence[tuple[str, str]]]]:
    for row in rows:
        who = names.get(row.person, row.person) or "–"
        ways = [
            *(["asked about"] if row.is_asked else []),
            *(["among the results"] if row.is_named else []),
        ]
        results = "1 result" if row.results == 1 else f"{row.results} results"
        yield (
            (str(row.index), when(row.at), who, Text("answered")),
            (
                ("sought", " ".join(w for w in (row.sought, row.action, row.resource_type) if w)),
                ("of", ", ".join(row.categories)),
                ("by", f"{names.get(row.service, row.service)} ({row.channel})"),
                ("how", ", ".join(ways)),
                ("found", f"{results}: {', '.join(row.actions)}" if row.actions else results),
                ("purpose", row.purpose),
            ),
        )


def _person(row: EvaluationRow, names: Names) -> str:
    if row.person:
        return names.get(row.person, row.person)
    # What an application may not ask is refused before anybody is looked for.
    return "not looked up" if row.reason == _UNASKED else "unknown to the control plane"


def _outcome(row: EvaluationRow) -> Text:
    if row.allowed:
        return Text("allowed", style="green")
    return Text("partly shown", style="yellow") if row.disclosed else Text("denied", style="red")


def _role(row: EvaluationRow) -> str:
    where = f" in {', '.join(row.departments)}" if row.departments else ""
    claimed = " (claimed)" if row.purpose_claimed else ""
    return f"{', '.join(row.roles) or 'no role'}{where}; {row.purpose or 'no purpose'}{claimed}"


def _asked(row: EvaluationRow, about_patient: bool) -> str:
    questions = "1 question" if row.questions == 1 else f"{row.questions} questions"
    patients = "1 patient" if row.patients == 1 else f"{row.patients} patients"
    about = "" if about_patient else f" about {patients}"
    return f"{row.action} {row.resource_type}, {questions}{about}"


def _levels(row: EvaluationRow) -> str:
    parts = []
    for level in (*_LEVELS, *sorted(set(row.levels.values()) - set(_LEVELS))):
        categories = sorted(c for c, shown in row.levels.items() if shown == level)
        if categories:
            parts.append(f"{level} {', '.join(categories)}")
    return "; ".join(parts)
