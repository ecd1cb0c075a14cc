"""A statement that was decided, and whom it looks for, as the log tells it.

The rules kept: the log holds tokens of patients, never their keys; a statement that looks for more
patients than one event can name is refused rather than recorded in part.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from chartgate.app.entitlement import Asker
from chartgate.errors import Refused
from chartgate.model.event import TableUse
from chartgate.sql.statement import (
    Rewritten,
    SetPurpose,
    Setting,
    ShowPurpose,
    Sought,
    Transaction,
)

MAX_SOUGHT: Final = 1_000
"""Patients that one statement may look for by key: their tokens stand in one event."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A statement, decided for the person as she is now, with what the log says of it."""

    step: "Rewritten | SetPurpose | ShowPurpose | Transaction | Setting | None"
    """``None`` for a statement without content, which has nothing to decide."""
    upstream: str
    action: str
    statement: str
    tables: tuple[TableUse, ...] = ()
    determining: tuple[str, ...] = ()
    asker: Asker | None = None
    """For whom it was decided; ``None`` for what has no content."""

    @property
    def rewritten(self) -> Rewritten | None:
        """The rewritten statement, if it reads or writes tables."""
        return self.step if isinstance(self.step, Rewritten) else None


class Looked:
    """Whom a statement looks for: tokens of the patient keys it compares with a value."""

    def __init__(self, token: Callable[[str, str], str]) -> None:
        self._token = token
        self._tokens: dict[str, None] = {}
        self.unread = 0
        """Values that were not understood, and so have no token."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """In the order of the statement, each once."""
        return tuple(self._tokens)

    def add(
        self,
        sought: Iterable[Sought],
        parameter: Callable[[int], tuple[bool, str | None]] = lambda _: (True, None),
    ) -> None:
        """``parameter`` says of ``$n`` whether it was understood, and its value as text."""
        for one in sought:
            value = one.value
            if value is None and one.parameter is not None:
                understood, value = parameter(one.parameter)
                self.unread += not understood
            if value is not None:
                self._tokens[self._token(one.domain, value)] = None
        if len(self._tokens) > MAX_SOUGHT:
            raise Refused(f"a statement looks for at most {MAX_SOUGHT} patients at a time")
