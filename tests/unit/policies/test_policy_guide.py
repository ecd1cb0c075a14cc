"""What docs/policy.md shows is what the project does."""

import re
import tomllib
from pathlib import Path

import pytest

from chartgate.app.scenarios import read_scenarios


@pytest.fixture(scope="module")
def guide(project_root: Path) -> str:
    return (project_root / "docs" / "policy.md").read_text()


def block(guide: str, language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", guide, re.DOTALL)
    return found


def test_the_policy_it_explains_is_the_one_that_ships(guide: str, shipped) -> None:
    assert block(guide, "cedar") in (shipped.folder / "roles" / "nurse.cedar").read_text()


def test_the_scenario_it_explains_holds(guide: str, shipped) -> None:
    scenarios = read_scenarios("guide", tomllib.loads(block(guide, "toml")))
    assert [r.passed for r in shipped.verdicts(list(scenarios), shipped.policies)] == [True]


def test_every_file_of_scenarios_is_in_its_table(guide: str, shipped) -> None:
    files = {path.name for path in (shipped.folder / "scenarios").glob("*.toml")}
    assert len(files) > 20
    assert [name for name in sorted(files) if f"`{name}`" not in guide] == []


def test_the_failure_it_shows_is_what_a_failure_looks_like(guide: str, shipped) -> None:
    text = """
    [[scenario]]
    title = "a physician reads the lab results of a patient she treats"
    who = { role = "physician", department = "cardiology" }
    purpose = "TREAT"
    asks = "view"
    record = { category = "labs", labels = ["protected_person"], departments = ["cardiology"] }
    expect = "full"
    """
    scenarios = read_scenarios("physician.toml", tomllib.loads(text))
    (result,) = shipped.verdicts(list(scenarios), shipped.policies)
    assert result.message in guide.replace("\n", " ")
