"""``chartgate policy diff`` on the shipped policies and a copy with one edit."""

import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from chartgate.adapters.policy_files import read_bundle, write_bundle
from chartgate.app.policy_bundle import Bundle, open_bundle
from chartgate.app.scenarios import read_scenarios, run
from chartgate.cli.main import app
from chartgate.cli.policy_replay import since_when
from chartgate.demo.shipped import shipped
from chartgate.errors import Misconfigured

NURSE_BILLS = (
    '\n@id("nurse_bills")\n@clause("x")\npermit (principal in Role::"nurse", action == '
    'Action::"view", resource) when { context.purpose in Purpose::"TREAT" } when '
    '{ resource.category == Category::"billing" };\n'
)


def diff(*words: str) -> Result:
    return CliRunner().invoke(app, ["policy", "diff", str(shipped("policies")), *words])


def edited(folder: Path, path: str, more: str) -> Path:
    bundle = read_bundle(shipped("policies"))
    write_bundle(Bundle({**bundle.files, path: bundle.text(path) + more}), folder)
    return folder


def test_a_comment_more_is_the_same_meaning_at_once(tmp_path: Path) -> None:
    found = diff(str(edited(tmp_path / "c", "guardrails.cedar", "// nothing\n")))
    assert found.exit_code == 0, found.output
    assert "Only comments, layout or order differ: guardrails.cedar." in found.output


def test_a_nurse_who_sees_bills_is_found_told_and_kept_as_a_scenario(tmp_path: Path) -> None:
    candidate = edited(tmp_path / "c", "roles/nurse.cedar", NURSE_BILLS)
    found = diff(str(candidate), "--json", "--scenarios", str(tmp_path / "kept"))
    assert found.exit_code == 1, found.output
    told = json.loads(found.stdout)
    assert {(c["role"], c["category"], c["verdict"]) for c in told["changed"]} == {
        ("nurse", "billing", "newly allowed")
    }
    assert told["verdicts"]["unchanged"] == told["cells"] - len(told["changed"])
    words = told["changed"][0]["more"]["words"]
    assert "nurse" in words
    assert "because of nurse_bills; before: withheld" in words
    [kept] = (tmp_path / "kept").iterdir()
    scenarios = read_scenarios(kept.name, tomllib.loads(kept.read_text()))
    version = open_bundle(read_bundle(candidate))
    now = datetime(2026, 3, 2, tzinfo=UTC)
    assert all(r.passed for r in run(scenarios, version.policies, version.roles, now))


def test_what_is_no_version_is_refused_in_one_line(tmp_path: Path) -> None:
    found = diff(str(tmp_path / "nowhere"))
    assert found.exit_code == 1
    assert "there is no policy folder" in found.output


@pytest.mark.parametrize("text", ["30", "d", "0d", "30w", "2026-13-01", "26-1-1", "-3d"])
def test_since_is_a_span_or_a_day(text: str) -> None:
    now = datetime(2026, 3, 2, tzinfo=UTC)
    with pytest.raises(Misconfigured):
        since_when(text, now)
    assert since_when("30d", now) < now  # type: ignore[operator]
