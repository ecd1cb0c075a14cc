"""The policies that ship, loaded once."""

import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chartgate.app.rolebook import RoleBook, read_rolebook
from chartgate.app.scenarios import Result, Scenario, read_scenarios, run
from chartgate.cedar.ast import PolicySet
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.schema import Schema
from chartgate.cedar.validate import parse_schema


@dataclass(frozen=True)
class Shipped:
    """Everything in the folder ``policies``, and what its scenarios came to."""

    folder: Path
    policies: PolicySet
    schema: Schema
    roles: RoleBook
    scenarios: tuple[Scenario, ...]
    results: tuple[Result, ...]

    def verdicts(self, scenarios: list[Scenario], policies: PolicySet) -> list[Result]:
        """The same question to other policies."""
        return run(scenarios, policies, self.roles, NOW)


NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def shipped(project_root: Path) -> Shipped:
    folder = project_root / "policies"
    policies = parse_policies(
        {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*.cedar"))}
    )
    roles = read_rolebook(
        tomllib.loads((folder / "roles.toml").read_text()),
        tomllib.loads((folder / "purposes.toml").read_text()),
    )
    scenarios = tuple(
        scenario
        for path in sorted((folder / "scenarios").glob("*.toml"))
        for scenario in read_scenarios(path.name, tomllib.loads(path.read_text()))
    )
    return Shipped(
        folder=folder,
        policies=policies,
        schema=parse_schema((folder / "schema.cedarschema").read_text(), "schema.cedarschema"),
        roles=roles,
        scenarios=scenarios,
        results=tuple(run(scenarios, policies, roles, NOW)),
    )
