"""What a lint found: how bad, where, in which policy, and what to do about it."""

from dataclasses import dataclass
from enum import IntEnum

from chartgate.cedar.ast import Policy


class Severity(IntEnum):
    """``error``: must not go in force. ``warning``: somebody should look. ``note``: worth knowing."""

    ERROR = 0
    WARNING = 1
    NOTE = 2

    @property
    def label(self) -> str:
        """The word."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found; ``rule`` is its stable name, ``message`` says what to do."""

    severity: Severity
    rule: str
    file: str
    line: int
    policy: str
    message: str

    def __str__(self) -> str:
        about = f" policy {self.policy}:" if self.policy else ""
        return (
            f"{self.file}:{self.line}: {self.severity.label}:{about} {self.message} [{self.rule}]"
        )


def found(severity: Severity, rule: str, policy: Policy, message: str) -> Finding:
    """A finding about a policy, at its place."""
    return Finding(severity, rule, policy.origin.file, policy.origin.line, policy.id, message)
