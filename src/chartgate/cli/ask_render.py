"""A decision on paper: what may be shown, why not more, and where it is on record.

The rule kept: everything that is shown came over a wire, so nothing that could steer a terminal is
passed on.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from chartgate.cli.render import plain
from chartgate.cli.screen import plain_table

_LEVEL_STYLES = {"full": "green", "summary": "yellow", "masked": "yellow", "withheld": "red"}
_LEVEL_WORDS = {
    "full": "everything",
    "summary": "in summary",
    "masked": "masked",
    "withheld": "nothing",
}
_FACTORS = {
    "urn:chartgate:acr:1": "a password",
    "urn:chartgate:acr:2": "a second factor",
    "urn:chartgate:acr:3": "a factor that cannot be phished",
}


def show_answer(out: Console, question: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """Print the answer."""
    said = answer.get("context")
    context: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
    _verdict(out, question, allowed=bool(answer["decision"]))
    _reason(out, _mapping(context.get("reason")))
    for title, name in (("Category", "levels"), ("Field", "fields")):
        if levels := _mapping(context.get(name)):
            _levels(out, title, levels)
    for line in obligations(context.get("obligations")):
        out.print(line)
    if ignored := _texts(context.get("ignored")):
        out.print(f"Not believed of this application: {', '.join(ignored)}.")
    if failed := _texts(context.get("errors")):
        words = f"Policies that could not be evaluated: {', '.join(failed)}."
        out.print(Text(words, style="red"))
    out.print()
    _facts(out, context)


def _verdict(out: Console, question: Mapping[str, Any], *, allowed: bool) -> None:
    resource = question["resource"]
    what = resource.get("properties", {})
    asked = [*what.get("categories", ()), *what.get("fields", ())]
    about = ", ".join(map(str, asked)) or f"{resource['type']} {resource['id']}"
    whose = f" of patient {what['patient']}" if "patient" in what else ""
    words = f"{question['subject']['id']}, {question['action']['name']}, {about}{whose}"
    verdict = Text("Allowed", style="bold green") if allowed else Text("Refused", style="bold red")
    out.print(verdict.append(f": {plain(words)}", style="not bold default"))


def _reason(out: Console, reason: Mapping[str, Any]) -> None:
    if text := reason.get("text"):
        clauses = _texts(reason.get("clauses"))
        cited = f" ({'; '.join(clauses)})" if clauses else ""
        out.print(plain(f"{text}{cited}"))


def _levels(out: Console, title: str, levels: Mapping[str, Any]) -> None:
    table = plain_table(title, "Level", "To be shown")
    for name, level in levels.items():
        text = plain(str(level))
        shown = _LEVEL_WORDS.get(text, "")
        table.add_row(plain(str(name)), Text(text, style=_LEVEL_STYLES.get(text, "")), shown)
    out.print()
    out.print(table)


def obligations(found: object) -> Iterable[str]:
    """What whoever enforces must do, and what would change the answer, line by line."""
    for one in found if isinstance(found, list | tuple) else ():
        told = _mapping(one)
        values = ", ".join(_texts(told.get("values")))
        factors = ", ".join(_FACTORS.get(one, one) for one in _texts(told.get("values")))
        categories = _mapping(told.get("categories"))
        listed = ", ".join(plain(f"{name} {level}") for name, level in categories.items())
        match told.get("type"):
            case "mask":
                yield f"To be shown at most: {listed}."
            case "step_up":
                yield f"Signing in again would change this: with {factors}."
            case "purpose":
                yield f"Another purpose would change this: {values}."
            case "break_glass":
                what = f" for {values}" if values else ""
                yield f"The emergency procedure is open to this person{what}."
            case kind:
                yield plain(f"To be done beside: {kind} {values}".rstrip() + ".")


def _facts(out: Console, context: Mapping[str, Any]) -> None:
    audit = _mapping(context.get("audit"))
    policies = _texts(context.get("policies"))
    for label, text in (
        ("Decided by", ", ".join(policies) or "no policy permits it"),
        ("Policies", str(context.get("policy_set", ""))[:12]),
        ("Data map", str(context.get("data_map", ""))[:12]),
        (
            "Recorded",
            f"event {audit['index']} of {audit.get('log', '')}" if "index" in audit else "",
        ),
        ("Holds until", str(context.get("valid_until", ""))),
    ):
        if text:
            out.print(f"{label:<12} {plain(text)}", soft_wrap=True)


def _mapping(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _texts(found: object) -> list[str]:
    return [plain(str(one)) for one in found] if isinstance(found, list | tuple) else []
