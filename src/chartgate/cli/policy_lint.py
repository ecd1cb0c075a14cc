"""``chartgate policy lint``: what was found, worst first, with its place and what to do."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from chartgate.adapters.policy_files import load_policy_version
from chartgate.app.lint import Severity, lint
from chartgate.cli import render
from chartgate.demo.shipped import shipped

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


def run_lint(folder: Path | None, *, json: bool) -> int:
    """Lint the folder and show what was found; answers the exit status."""
    directory = folder or shipped("policies")
    version = load_policy_version(directory)
    findings = lint(version, today=datetime.now(UTC).date())
    counted = Counter(finding.severity for finding in findings)
    status = 1 if counted[Severity.ERROR] else 0
    if json:
        render.print_json(
            {
                "policies": str(directory),
                "version": version.hash,
                "errors": counted[Severity.ERROR],
                "warnings": counted[Severity.WARNING],
                "notes": counted[Severity.NOTE],
                "findings": [
                    {
                        "severity": finding.severity.label,
                        "rule": finding.rule,
                        "file": finding.file,
                        "line": finding.line,
                        "policy": finding.policy or None,
                        "message": finding.message,
                    }
                    for finding in findings
                ],
            }
        )
        return status

    from rich.text import Text

    out = render.console()
    for finding in findings:
        about = f" policy {finding.policy}:" if finding.policy else ""
        out.print(
            Text(f"{render.plain(finding.file)}:{finding.line}: ")
            .append(f"{finding.severity.label}:", style=_STYLES[finding.severity])
            .append(render.plain(f"{about} {finding.message} "))
            .append(f"[{finding.rule}]", style="dim"),
            soft_wrap=True,
        )
    if findings:
        out.print()
    told = ", ".join(
        f"{counted[severity]} {severity.label}{'' if counted[severity] == 1 else 's'}"
        for severity in Severity
    )
    out.print(
        Text(f"{len(version.policies)} policies in {render.plain(str(directory))}: ").append(
            told, style="bold red" if status else "bold green"
        )
    )
    return status
