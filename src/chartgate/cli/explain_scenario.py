"""The question that a policy scenario asks, for ``chartgate explain --scenario``."""

from datetime import datetime

from chartgate.app.explain_question import Question
from chartgate.app.policy_bundle import PolicyVersion, scenarios_of
from chartgate.app.scenarios import Scenario
from chartgate.app.scenarios import record_of as scenario_record
from chartgate.cedar.values import RecordValue
from chartgate.errors import Misconfigured
from chartgate.model.principal import Person


def question_of_scenario(
    title: str, version: PolicyVersion, at: datetime
) -> tuple[Person, Question]:
    """Who asks for what in the scenario of that title."""
    wanted = title.strip().lower()
    all_of_them = scenarios_of(version.bundle)
    found = [s for s in all_of_them if s.title.lower() == wanted] or [
        s for s in all_of_them if wanted in s.title.lower()
    ]
    if len(found) != 1:
        some = "".join(f"\n  {s.file}: {s.title}" for s in found[:5])
        number = f"{len(found)} scenarios have" if found else "no scenario has"
        raise Misconfigured(f"{number} that in the title: {title!r}{some}")
    return found[0].who, _scenario_question(found[0], at)


def _scenario_question(scenario: Scenario, at: datetime) -> Question:
    row = scenario.record
    return Question(
        action=scenario.asks,
        labels=() if row is None else (row.category, *row.labels),
        purpose=scenario.purpose,
        at=at,
        record=RecordValue() if row is None else scenario_record(row, scenario.who),
        source="scenario",
        context=scenario.context,
    )
