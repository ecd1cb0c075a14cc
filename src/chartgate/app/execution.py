"""One execution of a statement: its decision in the log, and what its rows were about.

The rule kept: tokens of a batch of rows are on disk before the batch leaves (45 CFR 164.312(b)).
A patient is listed once for an execution; an event holds at most 1,000 tokens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from chartgate.app.gate_session import GateSession
from chartgate.app.planned import Planned
from chartgate.app.tokens import PATIENT
from chartgate.model.event import Completed, Decision, Release

MAX_TOKENS: Final = 1_000
NEVER_RAN: Final = "25P02"
"""The SQLSTATE of what was decided and then skipped, because something before it failed."""


@dataclass(slots=True, eq=False)
class Execution:
    """What is known of one execution so far. ``index`` is its decision's place in the log."""

    session: GateSession
    request: str
    planned: Planned | None
    decision: Decision
    refusal: str | None = None
    index: int | None = None
    sqlstate: str = "00000"
    rows: int = 0
    is_over: bool = False
    is_covered: bool = False
    """The companion query has told whom the answer is about."""
    notice_due: bool = True
    on_complete: Callable[[], None] | None = None
    """What follows for the session once the server has done it."""
    _known: set[bytes] = field(default_factory=set)
    _fresh: dict[str, list[bytes]] = field(default_factory=dict)
    _unreported_rows: int = 0

    @property
    def is_write(self) -> bool:
        """Whether it changes rows: then its decision is on disk before it is forwarded."""
        rewritten = self.planned.rewritten if self.planned is not None else None
        return rewritten is not None and not rewritten.read_only

    def saw(self, key: bytes | None, *, how: str) -> None:
        """A row (or the companion query) is about this patient key; ``how``: see ``releases``."""
        if key is not None and key not in self._known:
            self._known.add(key)
            self._fresh.setdefault(how, []).append(key)

    def delivered(self, rows: int) -> None:
        """So many more rows are about to leave."""
        self.rows += rows
        self._unreported_rows += rows

    def end(self, sqlstate: str = "") -> None:
        """It is over; ``sqlstate`` says how, if not well."""
        if not self.is_over:
            self.sqlstate = sqlstate or self.sqlstate
            self.is_over = True

    def releases(self) -> Iterator[Release]:
        """The events that must be on disk before what was read so far may leave.

        ``seen``: by a row of the answer; ``written``: by a row that was changed; ``companion``:
        by the key query, a superset of what the answer is about.
        """
        if not self._fresh:
            return
        assert self.index is not None
        rows, self._unreported_rows = self._unreported_rows, 0
        for how, keys in self._fresh.items():
            tokens = [self.session.token(PATIENT, key.decode()) for key in keys]
            for start in range(0, len(tokens), MAX_TOKENS):
                batch = tuple(tokens[start : start + MAX_TOKENS])
                yield Release(
                    at=self.session.stamp(),
                    node=self.session.node,
                    session=self.session.id,
                    person=self.session.person.uid,
                    request=self.request,
                    decision=self.index,
                    seen=() if how == "written" else batch,
                    written=batch if how == "written" else (),
                    rows=rows,
                    companion=how == "companion",
                )
                rows = 0
        self._fresh.clear()

    def completed(self) -> Completed:
        """The event that says how it ended; its absence means "may have been delivered"."""
        assert self.index is not None
        return Completed(
            at=self.session.stamp(),
            node=self.session.node,
            session=self.session.id,
            person=self.session.person.uid,
            request=self.request,
            decision=self.index,
            rows=self.rows,
            sqlstate=self.sqlstate,
        )
