"""``chartgate what-can``: all that one person may, for which purposes and records.

Rules kept: nothing is cut short; who asks is known, allowed and recorded before anything is shown.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from chartgate.app.explain_question import Question
from chartgate.app.policy_words import records_words
from chartgate.app.what_can import Grouped, grouped, what_can
from chartgate.cli import render
from chartgate.cli.explain import amount, held
from chartgate.cli.explain_inputs import Asker, moment, role_person, setting
from chartgate.cli.who_can import endings, holding_json, until
from chartgate.errors import Misconfigured
from chartgate.model.principal import Person

_ANY = datetime(1970, 1, 1, tzinfo=UTC)


def run_what_can(
    name: str | None,
    *,
    role: str | None,
    reference: str | None,
    at: str | None,
    asker: Asker,
    json: bool,
) -> int:
    """All that a person, or somebody in a role, may; always 0."""
    if (name is None) == (role is None):
        raise Misconfigured("what-can takes a PERSON, or --role ROLE")
    if role is not None:
        asker = Asker(asker.state, asker.as_, asker.purpose, asker.policies, None, roles=True)
    with setting(asker, "what somebody may do", {}, about=name) as found:
        if role is not None:
            person = role_person(role, found.version, reference)
        elif found.of_roles:
            raise Misconfigured(
                "there is no instance here to know people from: start `chartgate demo`, name a "
                "--state or a file of --people, or ask with --role ROLE"
            )
        else:
            person = found.person(str(name))
        when = moment(at)
        abilities = what_can(found.version, person, at=when, source=found.source)
    if json:
        answer = [
            {
                "action": one.action,
                "category": one.category,
                **holding_json(one.holding, Question(one.action, (), "", when), person.name),
            }
            for one in abilities
        ]
        render.print_json(
            {
                "person": person.name,
                "at": when,
                "policy_set": found.version.policies.hash,
                "abilities": answer,
                "asked_by": found.asked_by,
                "event": found.event,
            }
        )
        return 0
    out = render.console()
    same = person.full_name == person.name or person.name == "somebody"
    who = person.full_name if same else f"{person.full_name} ({person.name})"
    out.print(Text(f"What may {render.plain(who)} do, at {when:%Y-%m-%d %H:%M} UTC?", style="bold"))
    live = person.live(at=when) if person.active else ()
    roles = "; ".join(held(a) for a in live) or "no assignment that counts now: nothing"
    out.print(render.plain(f"Held: {roles}."))
    out.print("Where a record has several labels, all of them must allow it.")
    out.print()
    _show(out, grouped(abilities), person)
    if found.note and not found.of_roles:
        out.print(found.note)
    return 0


def _show(out: Console, groups: Iterable[Grouped], person: Person) -> None:
    by_purpose: dict[tuple[str, ...], list[Grouped]] = {}
    for one in groups:
        by_purpose.setdefault(one.holding.purposes, []).append(one)
    for purposes, some in by_purpose.items():
        out.print(Text(f"For {', '.join(purposes)}", style="bold"))
        for one in some:
            h = one.holding
            question = Question(one.action, (), "", _ANY)
            what = f"{one.action} {amount(question, h.rank)}" if question.is_view else one.action
            told = f"{what}: {', '.join(one.categories)}" if one.categories else what
            out.print(Padding(Text(told), (0, 0, 0, 2), expand=False))
            if one.categories and (records := records_words(h.when, person.name)) != "any record":
                out.print(Padding(records, (0, 0, 0, 6), expand=False))
            ends = [f"by {', '.join(h.policies)}"]
            if until(h) != "—":
                ends.append(f"until {until(h)} UTC")
            if len(person.assignments) > 1:
                ends.append(f"through {'; '.join(held(a) for a in h.through)}")
                ends.append(f"ended by {endings(h)}")
            out.print(
                Padding(
                    Text(render.plain("; ".join(ends)), style="dim"), (0, 0, 0, 6), expand=False
                )
            )
        out.print()
    if not by_purpose:
        out.print("Nothing.")
    elif len(person.assignments) == 1:
        out.print(f"Ending her assignment as {held(person.assignments[0])} ends all of it.")
