"""Errors: named for what happened, with a stable code, and never containing PHI.

``code`` is for programs and searches and never changes once released; ``sqlstate`` is what a
PostgreSQL client sees (PostgreSQL documentation, appendix A).
"""

from typing import ClassVar


class ChartgateError(Exception):
    """Base of every error that Chartgate raises on purpose."""

    code: ClassVar[str] = "chartgate"
    sqlstate: ClassVar[str] = "XX000"

    def __init__(self, *args: object, recorded: str | None = None) -> None:
        super().__init__(*args)
        self._recorded = recorded

    @property
    def recorded(self) -> str:
        """The message for the audit log: without a name that the person made up herself."""
        return str(self) if self._recorded is None else self._recorded


class Refused(ChartgateError):
    """Something was asked that we do not allow, or do not understand; the message names it."""

    code = "refused"
    sqlstate = "42501"


class Misconfigured(ChartgateError):
    """A policy, data map or setting cannot be obeyed as written: nothing starts."""

    code = "misconfigured"
    sqlstate = "F0000"


class LogUnavailable(ChartgateError):
    """The audit log cannot be written, so nothing may be released (45 CFR 164.312(b))."""

    code = "log_unavailable"
    sqlstate = "58030"


class Corrupt(ChartgateError):
    """Stored bytes are not what was written."""

    code = "corrupt"
    sqlstate = "XX001"
