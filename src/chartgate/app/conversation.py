"""The gateway's conversation: bytes in, commands out (decide, record, act).

Each statement is decided, its decision goes to the log, then it is forwarded; an answer leaves when
the decision and the patients of its rows are on disk. A write is forwarded only after its decision
is on disk. What is refused is refused *in place*: a statement that cannot be parsed goes upstream
instead, so that order, transaction state and session are the server's own, and the text of its
error is replaced.

PostgreSQL documentation, chapter 55 "Frontend/Backend Protocol".
"""

from collections.abc import Generator
from typing import Any, Final

from chartgate.app.commands import Command, FromClient, FromServer, Talk, ToClient
from chartgate.app.exchange import Exchange, Expected
from chartgate.app.extended import REFUSED_TEXT, ExtendedProtocol
from chartgate.app.gate_session import AccessEnded, GateSession
from chartgate.app.planned import Looked, Planned
from chartgate.errors import LogUnavailable, Refused
from chartgate.pgwire.frames import Frame, Run
from chartgate.pgwire.messages import (
    Bind,
    Close,
    CopyData,
    CopyDone,
    CopyFail,
    Describe,
    Execute,
    Flush,
    FunctionCall,
    Parse,
    Query,
    Sync,
    Terminate,
    decode_frontend,
    error,
)
from chartgate.pgwire.violation import ProtocolViolation
from chartgate.sql.parse import ParsedStatement
from chartgate.sql.statement import SetPurpose

MAX_QUEUED: Final = 500
MAX_QUEUED_BYTES: Final = 1 << 20
"""A batch is sent at the latest when it has so many messages, or so many bytes."""


class Conversation:
    """One client session after login. Drive ``talk()``; it ends when the session does."""

    def __init__(self, session: GateSession) -> None:
        self._session: Final = session
        self._x: Final = Exchange(session)
        self._extended: Final = ExtendedProtocol(self._x)
        self._queue: list[object] = []
        self._queued_bytes = 0

    def talk(self) -> Generator[Command, Any, str]:
        """The whole conversation; answers why it ended, for the log."""
        try:
            try:
                yield from self._statements()
            except AccessEnded as exc:
                yield from self._x.cut_off(exc)
                return "access ended"
            except (ProtocolViolation, Refused) as exc:
                yield ToClient(error(exc.sqlstate, str(exc), severity="FATAL"))
                return "protocol violation"
        except LogUnavailable:
            words = "the audit log cannot be written, so nothing is released"
            yield ToClient(error(LogUnavailable.sqlstate, words, severity="FATAL"))
            return "the audit log cannot be written"
        return "client left"

    def _statements(self) -> Talk:
        while True:
            frame: Frame | None = yield FromClient()
            if frame is None:
                runs: list[Run] = yield FromServer()
                yield from self._x.read(runs)
                continue
            message = decode_frontend(frame.kind, frame.body)
            match message:
                case Terminate():
                    return
                case Query(sql):
                    yield from self._simple(sql)
                case Sync() | Flush():
                    yield from self._batch(message)
                case Parse() | Bind() | Describe() | Execute() | Close():
                    self._queue.append(message)
                    self._queued_bytes += len(frame.body)
                    if len(self._queue) >= MAX_QUEUED or self._queued_bytes >= MAX_QUEUED_BYTES:
                        yield from self._batch()
                case FunctionCall():
                    yield from self._call()
                case CopyData() | CopyDone() | CopyFail():
                    pass  # what was on its way when COPY was refused; the server ignores it too
                case _:
                    raise ProtocolViolation("a message has no place in a session")

    # (1) Extended protocol: messages wait for Sync or Flush, then go in one batch.

    def _batch(self, end: Sync | Flush | None = None) -> Talk:
        queued, self._queue, self._queued_bytes = self._queue, [], 0
        for message in queued:
            yield from self._extended.handle(message)
        if end is not None:
            yield from self._extended.handle(end)
        if end is not None or queued:
            # Without an end of the client's own, a Flush of ours makes the server answer.
            yield from self._x.exchange(flush=end is None)

    # (2) Simple protocol.

    def _simple(self, text: str) -> Talk:
        yield from self._batch()
        if self._x.is_skipping:
            return  # as the server does
        statements: list[ParsedStatement] = []
        try:
            statements += self._session.statements(text)
            plans = [(s, self._plan(s, alone=len(statements) == 1)) for s in statements]
            slots, texts = self._decided(plans)
        except Refused as exc:
            self._x.withdraw()
            redacted = "; ".join(self._session.redacted(s) for s in statements)
            sought = self._session.sought_by(statements)
            yield from self._refuse(exc, redacted, len(text.encode()), sought)
            return
        self._extended.simple_query_sent()
        self._x.send(Query("; ".join(texts)), Expected(slots=slots))
        yield from self._x.exchange()

    def _plan(self, statement: ParsedStatement, *, alone: bool) -> Planned:
        planned = self._session.plan(statement)
        if isinstance(planned.step, SetPurpose):
            if not alone:
                raise Refused("SET chartgate.purpose must be a message of its own")
            self._session.check_claim(planned.step.value)
        return planned

    def _decided(
        self, plans: list[tuple[ParsedStatement, Planned]]
    ) -> tuple[list[Expected], list[str]]:
        """One slot a result and one text a statement, companions before what they belong to."""
        found = []
        for _, planned in plans:
            looked = Looked(self._session.token)
            if planned.rewritten is not None:
                looked.add(planned.rewritten.sought)
            found.append(looked)
        slots: list[Expected] = []
        texts: list[str] = []
        for (statement, planned), looked in zip(plans, found, strict=True):
            execution = self._x.decide(planned, looked)
            execution.on_complete = self._extended.effect_of(planned, statement)
            if planned.rewritten is not None and planned.rewritten.companion is not None:
                texts.append(planned.rewritten.companion)
                slots.append(Expected(execution=execution, companion=True))
            texts.append(self._extended.upstream_text(planned, statement))
            slots.append(Expected(execution=execution, planned=planned))
        return slots, texts

    def _refuse(
        self, reason: Refused, statement: str, length: int, sought: tuple[str, ...] = ()
    ) -> Talk:
        execution = self._x.refuse(reason, statement=statement, length=length, sought=sought)
        self._extended.simple_query_sent()
        self._x.send(Query(REFUSED_TEXT), Expected(slots=[Expected(execution=execution)]))
        yield from self._x.exchange()

    def _call(self) -> Talk:
        """The function call message is answered as a Query is: refused as one."""
        yield from self._batch()
        if not self._x.is_skipping:
            reason = Refused("the function call message is not allowed; use SELECT")
            yield from self._refuse(reason, "", 0)
