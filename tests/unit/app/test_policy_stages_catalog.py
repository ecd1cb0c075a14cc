"""A proposed version is held against the live catalog before anybody is asked to approve it."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from chartgate.adapters.policy_files import load_data_map, load_policy_version
from chartgate.app.policy_stages import POLICY_STAGES, Candidate, examine
from chartgate.sql.views import Column, Table, TableName


def test_policies_whose_row_attribute_the_column_cannot_be_stay_a_draft(project_root: Path) -> None:
    version = load_policy_version(project_root / "policies")
    data_map = load_data_map(project_root / "maps" / "hospital.toml", version.schema)
    name = TableName(data_map.schema, "encounter")
    live = Table(name, 1, (Column("department", "bytea"),))
    candidate = Candidate(
        subject="policies",
        bundle=version.bundle,
        in_force=None,
        version=version,
        data_map=data_map,
        people=(),
        at=datetime(2026, 1, 1, tzinfo=UTC),
        source=cast(Any, SimpleNamespace(tables={name: live})),
    )
    evidence = examine(POLICY_STAGES[0], candidate)
    assert not evidence.passed
    assert "encounter: the column department is bytea" in evidence.summary
