"""``chartgate policy test``: the scenarios' results, for whoever answers for the policies."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from chartgate.adapters.policy_files import load_policy_version
from chartgate.app.policy_bundle import scenarios_of
from chartgate.app.scenarios import run, unused
from chartgate.cli import render
from chartgate.demo.shipped import shipped


def run_scenarios(folder: Path | None, *, json: bool) -> int:
    """Run every scenario and show what came of it; answers the exit status."""
    directory = folder or shipped("policies")
    version = load_policy_version(directory)
    policies = version.policies
    results = run(scenarios_of(version.bundle), policies, version.roles, datetime.now(UTC))
    failed = [result for result in results if not result.passed]
    untested = unused(results, policies)
    if json:
        render.print_json(
            {
                "policies": str(directory),
                "policy_set": policies.hash,
                "scenarios": len(results),
                "passed": len(results) - len(failed),
                "failed": [
                    {
                        "file": result.scenario.file,
                        "title": result.scenario.title,
                        "clause": result.scenario.clause,
                        "expected": result.scenario.expect,
                        "got": result.got,
                        "determining": result.determining,
                        "message": result.message,
                    }
                    for result in failed
                ],
                "untested": untested,
            }
        )
        return 1 if failed else 0

    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = render.console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("Scenarios", "As expected", "Not"):
        table.add_column(heading, justify="left" if heading == "Scenarios" else "right")
    asked = Counter(result.scenario.file for result in results)
    wrong = Counter(result.scenario.file for result in failed)
    for file, count in asked.items():
        bad = wrong[file]
        table.add_row(
            file.removesuffix(".toml").replace("_", " "),
            str(count - bad),
            Text(str(bad) if bad else "", style="bold red"),
        )
    out.print(table)
    for result in failed:
        out.print(Text("FAILED  ", style="bold red").append(result.message, style="not bold"))
    if failed:
        out.print()
    if untested:
        out.print(f"Policies that decide none of these scenarios: {', '.join(untested)}")
        out.print()
    plural = "s" if len(policies.policies) != 1 else ""
    summary = (
        f"{len(results)} scenarios held against {len(policies.policies)} polic"
        f"{'ies' if plural else 'y'} in {directory}: "
    )
    verdict = (
        Text(f"{len(failed)} not as expected.", style="bold red")
        if failed
        else Text("all as expected.", style="bold green")
    )
    out.print(Text(summary).append_text(verdict))
    return 1 if failed else 0
