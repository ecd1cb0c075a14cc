"""``chartgate policy lint``: what a reviewer would stumble over, found before she reads.

Pure: over one policy version and a date. Findings come worst first, then in the order of files.
"""

from datetime import date

from chartgate.app.duties import conflicts, duties_of
from chartgate.app.lint_facts import Facts
from chartgate.app.lint_finding import Finding, Severity
from chartgate.app.lint_rules import RULES, reviewed
from chartgate.app.policy_bundle import PolicyVersion

__all__ = ["Finding", "Severity", "lint"]


def lint(version: PolicyVersion, *, today: date) -> tuple[Finding, ...]:
    """Everything found in the version's policies and in how its roles share duties.

    Raises ``InvalidBundle`` when ``duties.toml`` cannot be read.
    """
    facts = Facts(version)
    rules = (*RULES, reviewed(today))
    findings = [
        finding
        for policy in version.policies.policies
        for rule in rules
        for finding in rule(policy, facts)
    ]
    findings += conflicts(facts, duties_of(version))
    return tuple(sorted(findings, key=lambda f: (f.severity, f.file, f.line, f.rule, f.message)))
