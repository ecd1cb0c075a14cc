"""``chartgate policy prove``: exit status, the table, counterexamples, what is JSON."""

import io
import json
import shutil
import tomllib
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from chartgate.app.ceilings import Cell
from chartgate.cli.policy import policy_app
from chartgate.cli.policy_prove import _codes, _matrix, _parts
from chartgate.model.disclosure import Disclosure

POLICIES = Path(__file__).resolve().parents[3] / "policies"
RUN = CliRunner()
EXCEPT_AUTHOR = "unless { resource has author && resource.author == principal };"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped policies with one invariant, and a guardrail that can be taken away."""
    made = shutil.copytree(POLICIES, tmp_path / "policies")
    shutil.rmtree(made / "invariants")
    (made / "invariants").mkdir()
    (made / "invariants" / "one.toml").write_text(
        """
        [[invariant]]
        id = "psychotherapy"
        words = "Nobody but the author sees psychotherapy notes"
        clause = "164.508(a)(2)"
        claim = "never"
        actions = ["view", "view_summary", "view_masked"]
        categories = ["psychotherapy_notes"]
        unless = "resource has author && resource.author == principal"

        [[invariant]]
        id = "marketing"
        words = "Nothing for marketing"
        clause = "164.508(a)(3)"
        claim = "never"
        when = 'context.purpose in Purpose::"HMARKT"'
        """,
        encoding="utf-8",
    )
    return made


def break_rule(folder: Path) -> None:
    """The guardrail of psychotherapy notes no longer asks for the author."""
    file = folder / "guardrails.cedar"
    text = file.read_text(encoding="utf-8")
    assert EXCEPT_AUTHOR in text
    file.write_text(
        text.replace(EXCEPT_AUTHOR, "unless { resource has author };"), encoding="utf-8"
    )


def prove(folder: Path, *options: str) -> tuple[int, str]:
    done = RUN.invoke(policy_app, ["prove", "--policies", str(folder), *options])
    return done.exit_code, done.output


def test_what_is_proved_ends_with_zero(folder: Path) -> None:
    status, output = prove(folder)
    assert status == 0, output
    assert "Proved" in output
    assert "2 of 2 invariants proved" in output
    assert "ceilings proved" in output


def test_a_broken_rule_ends_with_one_and_shows_who_would_see_what(folder: Path) -> None:
    break_rule(folder)
    status, output = prove(folder)
    assert status == 1
    said = " ".join(output.split())
    assert "VIOLATED" in said
    assert "broken by: person 1, behavioral_health_clinician" in said
    assert "sees psychotherapy_notes in full" in said


def test_a_counterexample_is_kept_as_a_scenario(folder: Path, tmp_path: Path) -> None:
    break_rule(folder)
    kept = tmp_path / "found"
    status, _ = prove(folder, "--counterexamples", str(kept), "--invariant", "psychotherapy")
    assert status == 1
    (file,) = kept.iterdir()
    assert file.name == "psychotherapy.toml"
    (scenario,) = tomllib.loads(file.read_text(encoding="utf-8"))["scenario"]
    assert (scenario["asks"], scenario["expect"]) == ("view", "withheld")
    shutil.copy(file, folder / "scenarios" / "found.toml")
    done = RUN.invoke(policy_app, ["test", "--policies", str(folder)])
    assert done.exit_code == 1
    assert "found" in done.output


def test_a_counterexample_that_cannot_be_kept_is_told(folder: Path, tmp_path: Path) -> None:
    break_rule(folder)
    (tmp_path / "file").write_text("")
    status, output = prove(folder, "--counterexamples", str(tmp_path / "file"))
    assert status == 1
    assert "cannot write" in output


def test_the_table_has_every_role_and_category(folder: Path) -> None:
    status, output = prove(folder, "--table")
    assert status == 0, output
    row = next(line for line in output.splitlines() if line.split()[:1] == ["sud_part2"])
    assert len(row.split()) == 17
    assert "PHY physician" in output
    assert "320 of 320 ceilings proved" in output
    assert "for people who hold that role alone" in " ".join(output.split())


def test_a_ceiling_that_is_too_low_is_marked_in_the_table(folder: Path) -> None:
    file = folder / "ceilings.toml"
    document = tomllib.loads(file.read_text(encoding="utf-8"))
    document["physician"]["labs"] = "masked"
    lines = []
    for role, row in document.items():
        lines += [f"[{role}]", *(f'{name} = "{level}"' for name, level in row.items())]
    file.write_text("\n".join(lines), encoding="utf-8")
    status, output = prove(folder, "--table", "--invariant", "marketing")
    assert status == 1
    assert "M✗" in output
    assert "physician: labs at most masked: person 1, physician" in " ".join(output.split())


def test_other_roles_can_be_counted_in(folder: Path) -> None:
    _, output = prove(folder, "--with-other-roles", "--invariant", "marketing", "--table")
    assert "as long as the permit comes from this one" in " ".join(output.split())


def test_verdicts_are_json_for_programs(folder: Path) -> None:
    break_rule(folder)
    status, output = prove(folder, "--json")
    told = json.loads(output)
    assert status == 1
    verdicts = {p["id"]: p["verdict"] for p in told["invariants"]}
    assert verdicts == {"psychotherapy": "violated", "marketing": "proved"}
    assert "[[scenario]]" in told["invariants"][0]["scenario"]
    assert len(told["ceilings"]["cells"]) == 320
    assert told["ceilings"]["held"] == "alone"
    assert {c["verdict"] for c in told["ceilings"]["cells"]} <= {"proved", "violated"}


def test_an_invariant_that_is_not_there_is_told(folder: Path) -> None:
    status, output = prove(folder, "--invariant", "nothing")
    assert (status, "there is no invariant 'nothing'" in output) == (1, True)


def test_a_folder_without_claims_has_nothing_to_prove(folder: Path) -> None:
    shutil.rmtree(folder / "invariants")
    (folder / "ceilings.toml").unlink()
    status, output = prove(folder)
    assert status == 1
    assert "nothing to prove" in " ".join(output.split())


def test_headings_of_the_table_are_short_and_unlike() -> None:
    roles = ["nurse", "nursery_unit_rn_s", "nu_rn", "numeral", "nr"]
    codes = _codes(roles)
    assert len(set(codes.values())) == len(roles)
    assert codes["nurse"] == "NUR"


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_table_of_ceilings_is_never_wider_than_the_screen(width: int) -> None:
    roles = [path.stem for path in sorted((POLICIES / "roles").glob("*.cedar"))]
    cells = [
        Cell(role, "psychotherapy_notes", Disclosure.WITHHELD, "proved", 0.0) for role in roles
    ]
    out = io.StringIO()
    screen = Console(file=out, width=width)
    parts = _parts(cells, width)
    for part in parts:
        screen.print(_matrix(cells, part))
    assert [role for part in parts for role in part] == roles
    assert max(map(len, out.getvalue().splitlines())) <= width
    assert "…" not in out.getvalue()
    assert out.getvalue().count("-✓") == len(roles)
