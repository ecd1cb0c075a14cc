"""The documentation is true: links lead somewhere, commands exist, the worked example works."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from chartgate.cli.main import app
from chartgate.cli.policy_scenarios import run_scenarios

ROOT = Path(__file__).resolve().parents[2]
PAGES = tuple(sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))))
COMMAND = re.compile(
    r"^(?:\$ |    )(?:[A-Z_]+=\S+ )*(chartgate .*)$|`(chartgate [^`\n]+)`", re.MULTILINE
)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block, inline in COMMAND.findall(page.read_text("utf-8")):
            yield named(page), (block or inline).split("  #")[0].strip()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", found.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
            assert anchor in slugs, target


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_every_command_shown_is_one_that_exists(page: str, line: str) -> None:
    command = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while words and hasattr(command, "commands"):
        assert words[0].startswith("-") or words[0] in command.commands, line
        if words[0].startswith("-"):
            break
        command = command.commands[words.pop(0)]
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    given = {word for word in words if word.startswith("-")}
    if command.name == "psql":
        given -= set(words[1:])  # psql's own
    assert given <= known, f"{page}: {line}"


def test_the_administrator_s_example_works_as_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/admin.md: the sentence fails, the rule makes it hold, two other sentences object."""
    page = (ROOT / "docs" / "admin.md").read_text("utf-8")
    (sentence,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (rule,) = re.findall(r"```cedar\n(.*?)```", page, re.DOTALL)
    folder = shutil.copytree(ROOT / "policies", tmp_path / "policies")
    cases = folder / "scenarios" / "receptionist_scheduler.toml"
    before = "a receptionist reads the lab results of a patient of her department"
    parts = [part for part in cases.read_text("utf-8").split("[[scenario]]") if before not in part]
    cases.write_text("[[scenario]]".join(parts) + "\n" + sentence, "utf-8")

    assert run_scenarios(folder, json=False) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "1 not as expected" in told
    assert "sees nothing of labs, because no policy permits more" in told

    with (folder / "roles" / "receptionist_scheduler.cedar").open("a", encoding="utf-8") as file:
        file.write("\n" + rule)
    assert run_scenarios(folder, json=False) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "2 not as expected" in told
    assert told.count("FAILED seeds.toml") == 2
    for title in re.findall(r"\*(a receptionist sees no[^*]*|the same diagnostic[^*]*)\*", page):
        assert " ".join(title.split()) in told
