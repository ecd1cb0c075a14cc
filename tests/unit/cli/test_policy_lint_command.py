"""``chartgate policy lint`` and ``policy list``: exit status, what is shown, what is JSON."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chartgate.cli.policy import policy_app

POLICIES = Path(__file__).resolve().parents[3] / "policies"
RUN = CliRunner()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(POLICIES, tmp_path / "policies")


def add(folder: Path, text: str) -> None:
    (folder / "more.cedar").write_text(text, encoding="utf-8")


def test_the_shipped_policies_are_without_error() -> None:
    done = RUN.invoke(policy_app, ["lint"])
    assert done.exit_code == 0, done.output
    assert "0 errors" in done.output


def test_an_error_is_shown_with_its_place_and_ends_with_one(folder: Path) -> None:
    add(folder, '// c\n@id("wide") permit (principal, action, resource);')
    done = RUN.invoke(policy_app, ["lint", "--policies", str(folder)])
    assert done.exit_code == 1
    assert "more.cedar:2: error: policy wide: permits every action" in done.output
    assert "[open-to-anybody]" in done.output


def test_findings_are_json_for_programs(folder: Path) -> None:
    add(folder, '@id("wide") permit (principal, action, resource);')
    done = RUN.invoke(policy_app, ["lint", "--policies", str(folder), "--json"])
    assert done.exit_code == 1
    told = json.loads(done.output)
    assert told["errors"] == len([f for f in told["findings"] if f["severity"] == "error"]) > 0
    assert {"severity", "rule", "file", "line", "policy", "message"} == set(told["findings"][0])


def test_annotations_cannot_steer_the_terminal(folder: Path) -> None:
    add(
        folder,
        '@id("p") @owner("\\u{1b}[2J\\u{202e}") @clause("164.506") @review("2030-01-01")\n'
        'forbid (principal == User::"\\u{1b}]0;x\\u{7}", action == Action::"view", resource);',
    )
    for command in (["lint"], ["list"], ["list", "--json"]):
        done = RUN.invoke(policy_app, [*command, "--policies", str(folder)])
        assert done.exit_code == 0, done.output
        assert not {c for c in done.output if not c.isprintable()} - {"\n"}


def test_a_folder_that_cannot_be_read_is_one_line_and_one(folder: Path) -> None:
    add(folder, '@id("p") permit (principal,\n  actoin, resource);')
    done = RUN.invoke(policy_app, ["lint", "--policies", str(folder)])
    assert done.exit_code == 1
    assert "more.cedar:2:3: " in done.output


def test_the_list_is_found_by_clause_and_by_role() -> None:
    done = RUN.invoke(policy_app, ["list", "--clause", "164.508(a)(2)"])
    assert done.exit_code == 0
    assert "psychotherapy_notes_author_only" in done.output
    assert "nurse_cares" not in done.output
    done = RUN.invoke(policy_app, ["list", "--role", "nurse", "--json"])
    rows = json.loads(done.output)["listed"]
    assert "nurse_cares" in {row["id"] for row in rows}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--clause", "HIPAA"], "is no citation"),
        (["--role", "docter"], "there is no role"),
        (["--clause", "164.999"], "0 of"),
    ],
)
def test_a_list_of_nothing_ends_with_one(arguments: list[str], words: str) -> None:
    done = RUN.invoke(policy_app, ["list", *arguments])
    assert done.exit_code == 1
    assert words in done.output
