"""The gateway's conversation: bytes in, commands out (decide, record, act).

Each statement is decided, its decision goes to the log, then it is forwarded; an answer leaves when
the decision and the patients of its rows are on disk. A write is forwarded only after its decision
is on disk. What is refused is refused *in place*: a statement that cannot be parsed goes upstream
instead, so that order, transaction state and session are the server's own, and the text of its
error is replaced.

PostgreSQL documentation, chapter 55 "Frontend/Backend Protocol".
"""

import re
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from chartgate.app.commands import (
    Await,
    Command,
    FromClient,
    FromServer,
    Note,
    Post,
    Record,
    Talk,
    ToClient,
    ToServer,
)
from chartgate.app.execution import Execution
from chartgate.app.gate_session import AccessEnded, GateSession, Planned
from chartgate.app.sanitise import client_error, client_notice
from chartgate.errors import ChartgateError, LogUnavailable, Refused
from chartgate.model.event import Event
from chartgate.pgwire.frames import DATA_ROW, Frame, Run, split
from chartgate.pgwire.messages import (
    Bind,
    Close,
    CommandComplete,
    Describe,
    ErrorResponse,
    Execute,
    Flush,
    FunctionCall,
    NoData,
    NoticeResponse,
    ParameterDescription,
    Parse,
    Query,
    ReadyForQuery,
    RowDescription,
    Sync,
    Terminate,
    decode_backend,
    decode_frontend,
    error,
    notice,
)
from chartgate.pgwire.replies import Expectations
from chartgate.pgwire.rows import strip_row_description, strip_run
from chartgate.pgwire.values import text_of
from chartgate.pgwire.violation import ProtocolViolation
from chartgate.sql.parse import ParsedStatement
from chartgate.sql.parse import split as split_statements
from chartgate.sql.statement import Rewritten, SetPurpose

REFUSED_TEXT: Final = "chartgate_refused"
"""Not a statement of any SQL: the server answers 42601 and fails the transaction, as it should."""
_OURS: Final = "__cg_"
_PARAMETER: Final = re.compile(r"\$([0-9]{1,5})")
MAX_QUEUED: Final = 10_000
"""Extended-protocol messages before a Sync; more is refused rather than held in memory."""


@dataclass(slots=True, eq=False)
class _Prepared:
    """A prepared statement of the client: its text is kept, so that it can be decided again."""

    statement: ParsedStatement | None
    planned: Planned | None
    entitlement: object
    param_types: tuple[int, ...]
    refusal: ChartgateError | None = None


@dataclass(slots=True, eq=False)
class _Portal:
    """A bound statement; ``execution`` starts at its first Execute."""

    prepared: _Prepared
    bind: Bind
    entitlement: object
    execution: Execution | None = None


@dataclass(slots=True, eq=False)
class _Expected:
    """What to do with the answer to one message that went upstream."""

    swallow: bool = False
    execution: Execution | None = None
    companion: bool = False
    planned: Planned | None = None
    on_types: Callable[[tuple[int, ...]], None] | None = None
    undo: Callable[[], None] | None = None
    slots: list["_Expected"] = field(default_factory=list)
    """For a simple Query: one a result, in order; ``execution`` is then None."""


_Out: TypeAlias = "bytes | Execution | _Failure"
"""Bytes for the client, or the place where an execution's NOTICE or error stands: these name the
event's number, which is known when it is on disk."""


class Conversation:
    """One client session after login. Drive ``talk()``; it ends when the session does."""

    def __init__(self, session: GateSession) -> None:
        self._session: Final = session
        self._expect: Final = Expectations()
        self._statements: Final[dict[str, _Prepared]] = {}
        self._portals: Final[dict[str, _Portal]] = {}
        self._queue: list[object] = []
        self._forward: list[bytes] = []
        self._out: list[_Out] = []
        self._active: list[Execution] = []
        self._status = "I"

    def talk(self) -> Talk:
        """The whole conversation. Raises ``LogUnavailable`` when nothing may be released."""
        try:
            while True:
                frame = yield FromClient()
                if frame is None:
                    yield from self._unasked()
                    continue
                if not (yield from self._on_client(frame)):
                    return
        except (AccessEnded, ProtocolViolation, Refused) as exc:
            yield ToClient(error(exc.sqlstate, str(exc), severity="FATAL"))
        except LogUnavailable:
            words = "the audit log cannot be written, so nothing is released"
            yield ToClient(error(LogUnavailable.sqlstate, words, severity="FATAL"))
            raise

    # (1) Client messages.

    def _on_client(self, frame: Frame) -> Generator[Command, Any, bool]:
        message = decode_frontend(frame.kind, frame.body)
        match message:
            case Terminate():
                return False
            case Query(sql):
                yield from self._simple(sql)
            case Sync() | Flush():
                yield from self._batch(message)
            case Parse() | Bind() | Describe() | Execute() | Close():
                if len(self._queue) >= MAX_QUEUED:
                    raise ProtocolViolation("too many messages before a Sync")
                self._queue.append(message)
            case FunctionCall():
                raise ProtocolViolation("the function call message is not allowed; use SELECT")
            case _:
                raise ProtocolViolation("a message has no place in a session")
        return True

    def _unasked(self) -> Talk:
        runs: list[Run] = yield FromServer()
        yield from self._read(runs)

    # (2) Simple protocol.

    def _simple(self, text: str) -> Talk:
        yield from self._batch(None)
        try:
            statements = [s for s in split_statements(text) if not s.empty]
            plans = [self._plan_simple(s, alone=len(statements) == 1) for s in statements]
        except Refused as exc:
            yield from self._refuse_simple(exc, len(text))
            return
        slots: list[_Expected] = []
        texts: list[str] = []
        for planned in plans:
            rewritten = planned.rewritten
            sought = self._sought(rewritten, None, ())
            execution = yield from self._decide(planned, sought)
            if rewritten is not None and rewritten.companion is not None:
                texts.append(rewritten.companion)
                slots.append(_Expected(execution=execution, companion=True))
            texts.append(planned.upstream)
            slots.append(_Expected(execution=execution, planned=planned))
            if isinstance(planned.step, SetPurpose):
                self._session.claim(planned.step.value)
        self._send(Query("; ".join(texts)), _Expected(slots=slots))
        yield from self._exchange()

    def _plan_simple(self, statement: ParsedStatement, *, alone: bool) -> Planned:
        planned = self._session.plan(statement)
        if isinstance(planned.step, SetPurpose):
            if not alone:
                raise Refused("SET chartgate.purpose must be a message of its own")
            self._check_claim(planned.step.value)
        return planned

    def _refuse_simple(self, reason: Refused, length: int) -> Talk:
        execution = yield from self._record_refusal(reason, length)
        self._send(Query(REFUSED_TEXT), _Expected(slots=[_Expected(execution=execution)]))
        yield from self._exchange()

    # (3) Extended protocol: messages wait for Sync or Flush, then go in one batch.

    def _batch(self, end: Sync | Flush | None) -> Talk:
        queued, self._queue = self._queue, []
        for message in queued:
            match message:
                case Parse():
                    yield from self._parse(message)
                case Bind():
                    yield from self._bind(message)
                case Describe():
                    self._describe(message)
                case Execute():
                    yield from self._execute(message)
                case Close():
                    self._close(message)
        if end is not None:
            self._send(end, _Expected())
        if end is not None or queued:
            yield from self._exchange()

    def _parse(self, message: Parse) -> Talk:
        if message.name.startswith(_OURS):
            raise ProtocolViolation("a prepared statement may not be named like the gate's own")
        prepared = self._prepare(message)
        previous = self._statements.get(message.name)
        self._statements[message.name] = prepared

        def undo() -> None:
            if self._statements.get(message.name) is prepared:
                del self._statements[message.name]
                if previous is not None and message.name:
                    self._statements[message.name] = previous

        planned = prepared.planned
        text = planned.upstream if planned is not None else REFUSED_TEXT
        execution = None
        if prepared.refusal is not None:
            execution = yield from self._record_refusal(prepared.refusal, len(message.sql))
        self._send(replace(message, sql=text), _Expected(undo=undo, execution=execution))
        yield from self._prepare_companion(message.name, prepared)

    def _prepare(self, message: Parse) -> _Prepared:
        try:
            statements = split_statements(message.sql)
            if len(statements) > 1:
                raise Refused("a prepared statement holds one statement")
            if not statements or statements[0].empty:
                return _Prepared(None, Planned(None, "", "empty", ""), None, ())
            planned = self._session.plan(statements[0])
            if isinstance(planned.step, SetPurpose):
                self._check_claim(planned.step.value)
            return _Prepared(
                statements[0], planned, self._session.entitlement(), message.param_types
            )
        except Refused as exc:
            return _Prepared(None, None, None, message.param_types, refusal=exc)

    def _prepare_companion(self, name: str, prepared: _Prepared) -> Talk:
        """Prepare the key query beside the statement, with the statement's parameter types."""
        rewritten = prepared.planned.rewritten if prepared.planned is not None else None
        if rewritten is None:
            return
        count = _parameters_needed(rewritten)
        if 0 in prepared.param_types[:count] or count > len(prepared.param_types):
            # Inferred types are the server's to say; asked once, before anything depends on them.
            self._send(
                Describe("S", name),
                _Expected(swallow=True, on_types=lambda t: setattr(prepared, "param_types", t)),
            )
            self._send(Flush(), _Expected())
            yield from self._exchange()
        if rewritten.companion is not None:
            ours = _OURS + name
            self._send(Close("S", ours), _Expected(swallow=True))
            self._send(
                Parse(ours, rewritten.companion, prepared.param_types), _Expected(swallow=True)
            )

    def _bind(self, message: Bind) -> Talk:
        prepared = self._statements.get(message.statement)
        if prepared is None or prepared.planned is None:
            # The server knows no such statement either, and says so.
            self._send(message, _Expected())
            return
        yield from self._renew(message.statement, prepared)
        planned = prepared.planned
        portal = _Portal(prepared, message, prepared.entitlement)
        previous = self._portals.get(message.portal)
        self._portals[message.portal] = portal

        def undo() -> None:
            if self._portals.get(message.portal) is portal:
                del self._portals[message.portal]
                if previous is not None and message.portal:
                    self._portals[message.portal] = previous

        rewritten = planned.rewritten if planned is not None else None
        if rewritten is not None and rewritten.companion is not None:
            ours = replace(
                message,
                portal=_OURS + message.portal,
                statement=_OURS + message.statement,
                result_formats=(),
            )
            self._send(Close("P", ours.portal), _Expected(swallow=True))
            self._send(ours, _Expected(swallow=True))
        formats = message.result_formats
        hidden = rewritten.hidden_columns if rewritten is not None else 0
        if rewritten is not None and rewritten.returning_added:
            formats = ()
        elif len(formats) > 1:
            formats += (0,) * hidden
        self._send(replace(message, result_formats=formats), _Expected(undo=undo))

    def _renew(self, name: str, prepared: _Prepared) -> Talk:
        """Decide a prepared statement again when what the person may see has changed."""
        if prepared.statement is None or prepared.entitlement is self._session.entitlement():
            return
        try:
            planned: Planned | None = self._session.plan(prepared.statement)
        except Refused as exc:
            prepared.refusal, planned = exc, None
        prepared.planned = planned
        prepared.entitlement = self._session.entitlement()
        text = planned.upstream if planned is not None else REFUSED_TEXT
        execution = None
        if planned is None:
            assert prepared.refusal is not None
            execution = yield from self._record_refusal(prepared.refusal, 0)
        if name:
            self._send(Close("S", name), _Expected(swallow=True))
        self._send(
            Parse(name, text, prepared.param_types), _Expected(swallow=True, execution=execution)
        )
        yield from self._prepare_companion(name, prepared)

    def _describe(self, message: Describe) -> None:
        if message.kind == "S":
            prepared = self._statements.get(message.name)
        else:
            portal = self._portals.get(message.name)
            prepared = portal.prepared if portal is not None else None
        planned = prepared.planned if prepared is not None else None
        on_types = None
        if prepared is not None and message.kind == "S":
            known = prepared

            def on_types(types: tuple[int, ...]) -> None:
                known.param_types = types

        self._send(message, _Expected(planned=planned, on_types=on_types))

    def _execute(self, message: Execute) -> Talk:
        portal = self._portals.get(message.portal)
        planned = portal.prepared.planned if portal is not None else None
        if portal is None or planned is None or planned.step is None:
            # Unknown to the server too, or empty: nothing to decide.
            self._send(message, _Expected())
            return
        if portal.entitlement is not self._session.entitlement():
            changed = Refused("your access changed after this query was opened; run it again")
            execution = yield from self._record_refusal(changed, 0)
            self._send(Parse(_OURS + "refused", REFUSED_TEXT), _Expected(execution=execution))
            return
        if portal.execution is None or portal.execution.is_over:
            rewritten = planned.rewritten
            sought = self._sought(rewritten, portal.bind, portal.prepared.param_types)
            portal.execution = yield from self._decide(planned, sought)
            if rewritten is not None and rewritten.companion is not None:
                self._send(
                    Execute(_OURS + message.portal),
                    _Expected(execution=portal.execution, companion=True),
                )
            if isinstance(planned.step, SetPurpose):
                self._session.claim(planned.step.value)
        elif portal.execution not in self._active:
            self._active.append(portal.execution)
        self._send(message, _Expected(execution=portal.execution, planned=planned))

    def _close(self, message: Close) -> None:
        ours = Close(message.kind, _OURS + message.name)
        if message.kind == "S":
            known = self._statements.pop(message.name, None)
            companion = known is not None and _has_companion(known.planned)
        else:
            portal = self._portals.pop(message.name, None)
            companion = portal is not None and _has_companion(portal.prepared.planned)
        if companion:
            self._send(ours, _Expected(swallow=True))
        self._send(message, _Expected())

    # (4) Decide and record.

    def _decide(
        self, planned: Planned, sought: tuple[str, ...]
    ) -> Generator[Command, Any, Execution]:
        request = self._session.next_request()
        execution = Execution(self._session, request, planned)
        event = self._session.allowed(request, planned, sought)
        rewritten = planned.rewritten
        if rewritten is not None and not rewritten.read_only:
            execution.index = yield Record((event,))
        else:
            execution.ticket = yield Post((event,))
        self._active.append(execution)
        return execution

    def _record_refusal(
        self, reason: ChartgateError, length: int
    ) -> Generator[Command, Any, Execution]:
        request = self._session.next_request()
        execution = Execution(self._session, request, None, refusal=str(reason))
        execution.sqlstate = reason.sqlstate
        execution.ticket = yield Post((self._session.refused(request, str(reason), length),))
        self._active.append(execution)
        return execution

    def _check_claim(self, purpose: str) -> None:
        before = self._session.purpose
        self._session.claim(purpose)
        self._session.purpose = before

    def _sought(
        self, rewritten: Rewritten | None, bind: Bind | None, types: tuple[int, ...]
    ) -> tuple[str, ...]:
        if rewritten is None:
            return ()
        tokens: dict[str, None] = {}
        for sought in rewritten.sought:
            value = sought.value
            if value is None and bind is not None and sought.parameter is not None:
                value = _parameter(bind, types, sought.parameter - 1)
            if value is not None:
                tokens[self._session.token(sought.domain, value)] = None
        return tuple(tokens)

    # (5) To the server and back.

    def _send(self, message: Any, expected: _Expected) -> None:
        data: bytes = message.encode()
        target = message.kind if isinstance(message, Describe) else "P"
        if self._expect.sent(data[0], target, expected):
            self._forward.append(data)

    def _exchange(self) -> Talk:
        """Send what is waiting; read until every answer that is due has come."""
        if self._forward:
            data, self._forward = b"".join(self._forward), []
            yield ToServer(data)
        while len(self._expect):
            runs: list[Run] = yield FromServer()
            yield from self._read(runs)
        yield from self._release()

    def _read(self, runs: Iterable[Run]) -> Talk:
        for run in runs:
            self._on_server(run)
        yield from self._release()

    def _on_server(self, run: Run) -> None:
        letter = chr(run.kind)
        if letter in "NSA":
            self._asynchronous(letter, run)
            return
        answer = self._expect.on(run.kind)
        for skipped in answer.skipped:
            self._undo(skipped.note)
        expected = answer.request.note if answer.request is not None else None
        if not isinstance(expected, _Expected):
            self._without_request(letter, run)
            return
        if expected.slots:
            self._on_simple(letter, run, expected)
        else:
            self._on_answer(letter, run, expected)

    def _on_simple(self, letter: str, run: Run, query: _Expected) -> None:
        if letter == "Z":
            self._ready(run)
            return
        slot = query.slots[0]
        self._on_answer(letter, run, slot)
        if letter in "CI" and len(query.slots) > 1:
            query.slots.pop(0)
        if letter == "E":
            for later in query.slots[1:]:
                self._skipped(later.execution)
            del query.slots[1:]

    def _on_answer(self, letter: str, run: Run, expected: _Expected) -> None:
        match letter:
            case "E":
                self._failed(run, expected)
            case "Z":
                self._ready(run)
            case "D":
                self._rows(run, expected)
            case "T":
                self._described(run, expected)
            case "t":
                body = decode_backend(run.kind, run.data[5:])
                assert isinstance(body, ParameterDescription)
                if expected.on_types is not None:
                    expected.on_types(body.oids)
                self._emit(run.data, expected)
            case "C" | "I":
                self._over(run, expected)
            case _:
                self._emit(run.data, expected)

    def _emit(self, data: bytes, expected: _Expected) -> None:
        if not expected.swallow and not expected.companion:
            self._out.append(data)

    def _described(self, run: Run, expected: _Expected) -> None:
        rewritten = expected.planned.rewritten if expected.planned is not None else None
        if rewritten is None or expected.companion or not rewritten.hidden_columns:
            self._emit(run.data, expected)
            return
        if rewritten.returning_added:
            # Only a Describe asks; in the simple protocol the client sees no description at all.
            if expected.execution is None:
                self._emit(NoData().encode(), expected)
            return
        body = decode_backend(run.kind, run.data[5:])
        assert isinstance(body, RowDescription)
        keep = len(body.fields) - rewritten.hidden_columns
        self._emit(strip_row_description(run.data[5:], keep), expected)

    def _rows(self, run: Run, expected: _Expected) -> None:
        execution = expected.execution
        if execution is None:
            raise ProtocolViolation("the server sent rows that no statement asked for")
        if expected.companion:
            for row in split(run.data):
                _, values = strip_run(row, 0)
                execution.saw(values[0][0], how="companion")
            return
        rewritten = execution.planned.rewritten if execution.planned is not None else None
        data = run.data
        if rewritten is not None and rewritten.hidden_columns:
            keep = int.from_bytes(data[5:7], "big") - rewritten.hidden_columns
            data, stripped = strip_run(data, keep)
            how = "written" if rewritten.written_hidden else "seen"
            for keys in stripped:
                for key in keys:
                    execution.saw(key, how=how)
            if rewritten.returning_added:
                return
        execution.delivered(run.frames if run.kind == DATA_ROW else 0)
        self._emit(data, expected)

    def _over(self, run: Run, expected: _Expected) -> None:
        execution = expected.execution
        if execution is None or expected.companion:
            self._emit(run.data, expected)
            return
        if run.kind == ord("C"):
            body = decode_backend(run.kind, run.data[5:])
            assert isinstance(body, CommandComplete)
            if not execution.rows:
                execution.rows = _affected(body.tag)
        rewritten = execution.planned.rewritten if execution.planned is not None else None
        if rewritten is not None and rewritten.limited and execution.notice_due:
            execution.notice_due = False
            self._out.append(execution)
        execution.is_over = True
        self._emit(run.data, expected)

    def _failed(self, run: Run, expected: _Expected) -> None:
        body = decode_backend(run.kind, run.data[5:])
        assert isinstance(body, ErrorResponse)
        if expected.undo is not None:
            expected.undo()
        execution = expected.execution
        if execution is None:
            self._out.append(client_error(body, f"session {self._session.id}"))
            return
        if execution.refusal is None:
            execution.sqlstate = body.sqlstate
        execution.is_over = True
        self._out.append(_Failure(execution, body))

    def _skipped(self, execution: Execution | None) -> None:
        if execution is not None and not execution.is_over:
            execution.sqlstate = "25P02"
            execution.is_over = True

    def _undo(self, note: object) -> None:
        if isinstance(note, _Expected):
            if note.undo is not None:
                note.undo()
            self._skipped(note.execution)

    def _ready(self, run: Run) -> None:
        body = decode_backend(run.kind, run.data[5:])
        assert isinstance(body, ReadyForQuery)
        self._status = body.status
        if self._status == "I":
            # Portals do not outlive their transaction.
            self._portals.clear()
            for execution in self._active:
                execution.is_over = True
        self._out.append(run.data)

    def _asynchronous(self, letter: str, run: Run) -> None:
        body = decode_backend(run.kind, run.data[5:])
        if isinstance(body, NoticeResponse):
            if passed := client_notice(body.fields):
                self._out.append(passed)
        elif letter == "S":
            self._out.append(run.data)

    def _without_request(self, letter: str, run: Run) -> None:
        if letter == "E":
            body = decode_backend(run.kind, run.data[5:])
            assert isinstance(body, ErrorResponse)
            self._out.append(client_error(body, f"session {self._session.id}"))

    # (6) Release: the log first, then the client.

    def _release(self) -> Talk:
        if not self._out and not any(e.is_over for e in self._active):
            return
        events: list[Event] = []
        for execution in self._active:
            if execution.index is None:
                execution.index = yield Await(execution.ticket)
            events.extend(execution.releases())
        if events:
            yield Record(tuple(events))
        out, self._out = self._out, []
        if out:
            yield ToClient(b"".join(self._bytes(part) for part in out))
        finished = [e for e in self._active if e.is_over]
        if finished:
            self._active = [e for e in self._active if not e.is_over]
            yield Note(tuple(e.completed() for e in finished))

    def _bytes(self, part: _Out) -> bytes:
        if isinstance(part, bytes):
            return part
        if isinstance(part, _Failure):
            return part.encode()
        assert part.planned is not None
        rewritten = part.planned.rewritten
        assert rewritten is not None
        return notice(
            f"limited by policy for {self._session.name}, purpose {self._session.purpose}"
            f" (event {part.index})",
            detail="\n".join(rewritten.limited),
        )


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error for the client; the event number in it is known when it is on disk."""

    execution: Execution
    source: ErrorResponse

    def encode(self) -> bytes:
        where = f"event {self.execution.index}"
        if self.execution.refusal is not None:
            return error(self.execution.sqlstate, f"{self.execution.refusal} ({where})")
        return client_error(self.source, where)


def _has_companion(planned: Planned | None) -> bool:
    rewritten = planned.rewritten if planned is not None else None
    return rewritten is not None and rewritten.companion is not None


def _parameters_needed(rewritten: Rewritten) -> int:
    """How many parameters the gate itself needs the types of; too many does no harm."""
    if rewritten.companion is not None:
        return max((int(n) for n in _PARAMETER.findall(rewritten.sql)), default=0)
    return max((s.parameter or 0 for s in rewritten.sought), default=0)


def _parameter(bind: Bind, types: tuple[int, ...], at: int) -> str | None:
    if at >= len(bind.params) or (value := bind.params[at]) is None:
        return None
    return text_of(types[at] if at < len(types) else 0, bind.format_of(at), value)


def _affected(tag: str) -> int:
    """The count at the end of a command tag, as in ``INSERT 0 3``; 0 where there is none."""
    last = tag.rpartition(" ")[2]
    return int(last) if last.isascii() and last.isdigit() else 0
