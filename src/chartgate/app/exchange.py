"""What goes to the source, what comes back, and what may leave: decide, record, act.

Rules kept: a decision is posted to the log before its statement is forwarded, and is on disk
before a write is; an answer leaves when the decision and the patients of its rows are on disk.
What the server skips after an error is undone here in the reverse order of sending, so that the
gate never believes the server to hold a statement that it does not hold.

PostgreSQL documentation, 55.2 "Message Flow".
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from chartgate.app.commands import (
    Await,
    FromServer,
    Note,
    Post,
    Record,
    Talk,
    ToClient,
    ToServer,
)
from chartgate.app.execution import NEVER_RAN, Execution
from chartgate.app.gate_session import GateSession
from chartgate.app.planned import Looked, Planned
from chartgate.app.sanitise import client_error, client_notice, sqlstate_of
from chartgate.errors import ChartgateError
from chartgate.model.event import Event
from chartgate.pgwire.frames import DATA_ROW, Run
from chartgate.pgwire.messages import (
    CommandComplete,
    Describe,
    ErrorResponse,
    Flush,
    NoData,
    NoticeResponse,
    ParameterDescription,
    ParameterStatus,
    ReadyForQuery,
    decode_backend,
    error,
    notice,
)
from chartgate.pgwire.replies import Expectations
from chartgate.pgwire.rows import strip_row_description, strip_run
from chartgate.pgwire.violation import ProtocolViolation

HIDDEN_STATUS: Final = frozenset({"is_superuser", "session_authorization", "search_path"})
"""Settings the source reports that are about its service account, not about the person."""
_TOGETHER: Final = 16
"""Events in one append, which has a largest size (an event has at most 64 KiB)."""


@dataclass(slots=True, eq=False)
class Expected:
    """What to do with the answer to one message that went upstream."""

    swallow: bool = False
    execution: Execution | None = None
    companion: bool = False
    planned: Planned | None = None
    on_types: Callable[[tuple[int, ...]], None] | None = None
    done: Callable[[], None] | None = None
    """The server has done it."""
    undo: Callable[[bool], None] | None = None
    """It has not; the argument says whether it was skipped, that is, never looked at."""
    slots: list["Expected"] = field(default_factory=list)
    """For a simple Query: one a result, in order; ``execution`` is then None."""


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


_Out: TypeAlias = "bytes | Execution | _Failure"
"""Bytes for the client, or the place where an execution's NOTICE or error stands: these name the
event's number, which is known when it is on disk."""


class Exchange:
    """The two directions of one session between decisions; knows no names of statements."""

    def __init__(self, session: GateSession) -> None:
        self.session: Final = session
        self.on_idle: Callable[[], None] = lambda: None
        """Called when a transaction has ended: portals do not outlive it."""
        self._expect: Final = Expectations()
        self._forward: list[bytes] = []
        self._decided: list[Execution] = []
        self._active: list[Execution] = []
        self._out: list[_Out] = []
        self._newest: int | None = None
        """Place in the log of the session's newest decision."""

    @property
    def is_skipping(self) -> bool:
        """Whether the server ignores everything until the next Sync."""
        return self._expect.is_skipping

    # (1) Decide: the event is posted with the batch that it belongs to.

    def decide(self, planned: Planned, looked: Looked) -> Execution:
        """An allowed statement is about to be sent. Raises ``Refused`` if it cannot be recorded."""
        request = self.session.next_request()
        decision = self.session.allowed(request, planned, looked)
        return self._pending(Execution(self.session, request, planned, decision))

    def refuse(
        self,
        reason: ChartgateError,
        *,
        statement: str = "",
        length: int = 0,
        sought: tuple[str, ...] = (),
    ) -> Execution:
        """A statement was refused; ``sought`` are the patients that it looked for."""
        request = self.session.next_request()
        decision = self.session.refused(request, reason.recorded, length, statement, sought)
        execution = Execution(self.session, request, None, decision, refusal=str(reason))
        execution.sqlstate = reason.sqlstate
        return self._pending(execution)

    def _pending(self, execution: Execution) -> Execution:
        self._decided.append(execution)
        self._active.append(execution)
        return execution

    def withdraw(self) -> None:
        """What was decided and not sent is not going to be: recorded, as never run."""
        for execution in self._decided:
            execution.end(NEVER_RAN)

    def again(self, execution: Execution) -> None:
        """More rows of an execution are asked for."""
        if execution not in self._active:
            self._active.append(execution)

    # (2) To the server and back.

    def send(self, message: Any, expected: Expected | None = None) -> None:
        """Queue a message for the server; what it would not look at is undone at once."""
        data: bytes = message.encode()
        target = message.kind if isinstance(message, Describe) else "P"
        expected = expected or Expected()
        if self._expect.sent(data[0], target, expected):
            self._forward.append(data)
        else:
            self._skipped(expected)

    def swallow(self, message: Any) -> None:
        """Queue a message whose answer is not the client's."""
        self.send(message, Expected(swallow=True))

    def exchange(self, *, flush: bool = False) -> Talk:
        """Record and send what is waiting; read until every answer that is due has come."""
        if flush:
            self.send(Flush())
        yield from self._record_decisions()
        if self._forward:
            data, self._forward = b"".join(self._forward), []
            yield ToServer(data)
        while len(self._expect):
            runs: list[Run] = yield FromServer()
            yield from self.read(runs)
        yield from self._release()

    def read(self, runs: Iterable[Run]) -> Talk:
        """Take the server's messages, and let out what may leave."""
        for run in runs:
            self._on_server(run)
        yield from self._release()

    def cut_off(self, reason: ChartgateError) -> Talk:
        """Nothing more is sent or released: record what was asked, and say why."""
        self._forward.clear()
        self._out.clear()
        refused = self.refuse(reason)
        for execution in self._active:
            execution.end(reason.sqlstate)
        yield from self._record_decisions()
        assert refused.index is not None
        yield Await(refused.index)
        yield ToClient(
            error(reason.sqlstate, f"{reason} (event {refused.index})", severity="FATAL")
        )
        yield from self._complete()

    def _record_decisions(self) -> Talk:
        decided, self._decided = self._decided, []
        if not decided:
            return
        last_write = None
        for start in range(0, len(decided), _TOGETHER):
            group = decided[start : start + _TOGETHER]
            first: int = yield Post(tuple(e.decision for e in group))
            for offset, execution in enumerate(group):
                execution.index = self._newest = first + offset
                if execution.is_write:
                    last_write = execution.index
        if last_write is not None:
            yield Await(last_write)

    # (3) Whose answer it is.

    def _on_server(self, run: Run) -> None:
        letter = chr(run.kind)
        if letter in "NSA":
            self._asynchronous(letter, run)
            return
        answer = self._expect.on(run.kind)
        for skipped in reversed(answer.skipped):
            if isinstance(skipped.note, Expected):
                self._skipped(skipped.note)
        expected = answer.request.note if answer.request is not None else None
        if not isinstance(expected, Expected):
            if letter == "E":
                self._out.append(client_error(_error(run), f"session {self.session.id}"))
        elif expected.slots:
            self._on_simple(letter, run, expected)
        else:
            self._on_answer(letter, run, expected)
            if answer.finished and letter != "E" and expected.done is not None:
                expected.done()

    def _on_simple(self, letter: str, run: Run, query: Expected) -> None:
        if letter == "Z":
            self._ready(run)
            return
        self._on_answer(letter, run, query.slots[0])
        if letter in "CI" and len(query.slots) > 1:
            query.slots.pop(0)
        if letter == "E":
            for later in query.slots[1:]:
                self._skipped(later)
            del query.slots[1:]

    def _on_answer(self, letter: str, run: Run, expected: Expected) -> None:
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
            case "C" | "I" | "s":
                self._ended(letter, run, expected)
            case _:
                self._emit(run.data, expected)

    def _emit(self, data: bytes, expected: Expected) -> None:
        if not expected.swallow and not expected.companion:
            self._out.append(data)

    def _described(self, run: Run, expected: Expected) -> None:
        rewritten = expected.planned.rewritten if expected.planned is not None else None
        if rewritten is None or expected.companion or not rewritten.hidden_columns:
            self._emit(run.data, expected)
            return
        if rewritten.returning_added:
            # Only a Describe asks; in the simple protocol the client sees no description at all.
            if expected.execution is None:
                self._emit(NoData().encode(), expected)
            return
        columns = int.from_bytes(run.data[5:7], "big")
        keep = columns - rewritten.hidden_columns
        self._emit(strip_row_description(run.data[5:], keep), expected)

    def _rows(self, run: Run, expected: Expected) -> None:
        execution = expected.execution
        if execution is None:
            raise ProtocolViolation("the server sent rows that no statement asked for")
        if expected.companion:
            _, found = strip_run(run.data, 0)
            for row in found:
                execution.saw(row[0], how="companion")
            return
        if execution.is_over:
            raise ProtocolViolation("rows came of a statement that had ended")
        rewritten = execution.planned.rewritten if execution.planned is not None else None
        data = run.data
        if rewritten is not None and rewritten.companion is not None and not execution.is_covered:
            raise ProtocolViolation("rows came of which it is not known whom they are about")
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

    def _ended(self, letter: str, run: Run, expected: Expected) -> None:
        execution = expected.execution
        if execution is None or expected.companion:
            if execution is not None:
                execution.is_covered = True
            self._emit(run.data, expected)
            return
        rewritten = execution.planned.rewritten if execution.planned is not None else None
        if rewritten is not None and rewritten.limited and execution.notice_due:
            execution.notice_due = False
            self._out.append(execution)
        if letter == "C":
            body = decode_backend(run.kind, run.data[5:])
            assert isinstance(body, CommandComplete)
            if not execution.rows:
                execution.rows = _affected(body.tag)
            if execution.on_complete is not None:
                execution.on_complete()
        if letter != "s":
            execution.end()
        self._emit(run.data, expected)

    def _failed(self, run: Run, expected: Expected) -> None:
        if expected.undo is not None:
            expected.undo(False)
        execution = expected.execution
        report = _error(run)
        if execution is None:
            self._out.append(client_error(report, f"session {self.session.id}"))
            return
        execution.end("" if execution.refusal is not None else sqlstate_of(report))
        self._out.append(_Failure(execution, report))

    def _skipped(self, expected: Expected) -> None:
        if expected.undo is not None:
            expected.undo(True)
        if expected.execution is not None:
            expected.execution.end(NEVER_RAN)
        for slot in expected.slots:
            self._skipped(slot)

    def _ready(self, run: Run) -> None:
        body = decode_backend(run.kind, run.data[5:])
        assert isinstance(body, ReadyForQuery)
        if body.status == "I":
            self.on_idle()
            for execution in self._active:
                execution.end()
        self._out.append(run.data)

    def _asynchronous(self, letter: str, run: Run) -> None:
        body = decode_backend(run.kind, run.data[5:])
        if isinstance(body, NoticeResponse):
            if passed := client_notice(body.fields):
                self._out.append(passed)
        elif isinstance(body, ParameterStatus) and body.name not in HIDDEN_STATUS:
            self._out.append(run.data)

    # (4) Release: the log first, then the client.

    def _release(self) -> Talk:
        if not self._out and not any(e.is_over for e in self._active):
            return
        events: list[Event] = []
        for execution in self._active:
            events.extend(execution.releases())
        for start in range(0, len(events), _TOGETHER):
            yield Record(tuple(events[start : start + _TOGETHER]))
        if not events and self._newest is not None:
            # Also when it is on disk for long: a log that has failed since lets nothing go.
            yield Await(self._newest)
        out, self._out = self._out, []
        if out:
            yield ToClient(b"".join(self._bytes(part) for part in out))
        yield from self._complete()

    def _complete(self) -> Talk:
        finished = [e for e in self._active if e.is_over]
        if finished:
            self._active = [e for e in self._active if not e.is_over]
            for start in range(0, len(finished), _TOGETHER):
                yield Note(tuple(e.completed() for e in finished[start : start + _TOGETHER]))

    def _bytes(self, part: _Out) -> bytes:
        if isinstance(part, bytes):
            return part
        if isinstance(part, _Failure):
            return part.encode()
        assert part.planned is not None
        rewritten = part.planned.rewritten
        assert rewritten is not None
        return notice(
            f"limited by policy for {self.session.name}, purpose {part.decision.purpose}"
            f" (event {part.index})",
            detail="\n".join(rewritten.limited),
        )


def _error(run: Run) -> ErrorResponse:
    body = decode_backend(run.kind, run.data[5:])
    assert isinstance(body, ErrorResponse)
    return body


def _affected(tag: str) -> int:
    """The count at the end of a command tag, as in ``INSERT 0 3``; 0 where there is none."""
    last = tag.rpartition(" ")[2]
    return int(last) if last.isascii() and last.isdigit() else 0
