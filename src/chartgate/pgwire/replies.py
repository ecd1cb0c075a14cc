"""Which server messages answer which client message: the state machine as a table.

The gateway must know whose answer it reads: whose rows these are decides what is stripped and
recorded. Replies come in the order of the requests (PostgreSQL documentation, 55.2), so the
outstanding requests are a queue. A pair that is not in the table is illegal and ends the session.

- An ErrorResponse to an extended-protocol message makes the server skip everything until Sync:
  what was skipped is never answered, and is given back so that its effects can be forgotten.
- NoticeResponse, ParameterStatus and NotificationResponse may come at any time and answer nobody.
- While it reads COPY data the server ignores Sync and Flush. A Sync that was sent before the
  server entered COPY mode may be ignored or, if the COPY fails at once, answered: both are legal.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, NamedTuple

from chartgate.errors import Refused
from chartgate.pgwire.violation import ProtocolViolation


class Phase(Enum):
    """How far the answer to one request has come."""

    PARSE = auto()
    BIND = auto()
    CLOSE = auto()
    DESCRIBE_STATEMENT = auto()
    DESCRIBE_PORTAL = auto()
    EXECUTE = auto()
    EXECUTE_ROWS = auto()
    EXECUTE_COPY_IN = auto()
    EXECUTE_COPY_OUT = auto()
    EXECUTE_COPIED = auto()
    SYNC = auto()
    QUERY = auto()
    QUERY_ROWS = auto()
    QUERY_COPY_IN = auto()
    QUERY_COPY_OUT = auto()
    QUERY_COPIED = auto()
    QUERY_FAILED = auto()
    COPY_END = auto()
    DONE = auto()
    FAILED = auto()


_P = Phase

STARTS: Final[dict[str, Phase]] = {
    "P": _P.PARSE,
    "B": _P.BIND,
    "C": _P.CLOSE,
    "D": _P.DESCRIBE_PORTAL,
    "E": _P.EXECUTE,
    "S": _P.SYNC,
    "Q": _P.QUERY,
}
"""Client messages that are answered; a Describe of a statement starts a phase earlier."""

SILENT: Final = frozenset("HXd")
"""Client messages that nothing answers: Flush, Terminate, CopyData."""

_EXTENDED: Final = (
    _P.PARSE,
    _P.BIND,
    _P.CLOSE,
    _P.DESCRIBE_STATEMENT,
    _P.DESCRIBE_PORTAL,
    _P.EXECUTE,
    _P.EXECUTE_ROWS,
    _P.EXECUTE_COPY_IN,
    _P.EXECUTE_COPY_OUT,
    _P.EXECUTE_COPIED,
)
_SIMPLE: Final = (
    _P.QUERY,
    _P.QUERY_ROWS,
    _P.QUERY_COPY_IN,
    _P.QUERY_COPY_OUT,
    _P.QUERY_COPIED,
)

TABLE: Final[dict[tuple[Phase, str], Phase]] = {
    (_P.PARSE, "1"): _P.DONE,
    (_P.BIND, "2"): _P.DONE,
    (_P.CLOSE, "3"): _P.DONE,
    (_P.DESCRIBE_STATEMENT, "t"): _P.DESCRIBE_PORTAL,
    (_P.DESCRIBE_PORTAL, "T"): _P.DONE,
    (_P.DESCRIBE_PORTAL, "n"): _P.DONE,
    (_P.EXECUTE, "D"): _P.EXECUTE_ROWS,
    (_P.EXECUTE, "C"): _P.DONE,
    (_P.EXECUTE, "I"): _P.DONE,
    (_P.EXECUTE, "s"): _P.DONE,
    (_P.EXECUTE, "G"): _P.EXECUTE_COPY_IN,
    (_P.EXECUTE, "H"): _P.EXECUTE_COPY_OUT,
    (_P.EXECUTE_ROWS, "D"): _P.EXECUTE_ROWS,
    (_P.EXECUTE_ROWS, "C"): _P.DONE,
    (_P.EXECUTE_ROWS, "s"): _P.DONE,
    (_P.EXECUTE_COPY_IN, "C"): _P.DONE,
    (_P.EXECUTE_COPY_OUT, "d"): _P.EXECUTE_COPY_OUT,
    (_P.EXECUTE_COPY_OUT, "c"): _P.EXECUTE_COPIED,
    (_P.EXECUTE_COPIED, "C"): _P.DONE,
    (_P.QUERY, "T"): _P.QUERY_ROWS,
    (_P.QUERY, "C"): _P.QUERY,
    (_P.QUERY, "I"): _P.QUERY,
    (_P.QUERY, "G"): _P.QUERY_COPY_IN,
    (_P.QUERY, "H"): _P.QUERY_COPY_OUT,
    (_P.QUERY, "Z"): _P.DONE,
    (_P.QUERY_ROWS, "D"): _P.QUERY_ROWS,
    (_P.QUERY_ROWS, "C"): _P.QUERY,
    (_P.QUERY_COPY_IN, "C"): _P.QUERY,
    (_P.QUERY_COPY_OUT, "d"): _P.QUERY_COPY_OUT,
    (_P.QUERY_COPY_OUT, "c"): _P.QUERY_COPIED,
    (_P.QUERY_COPIED, "C"): _P.QUERY,
    (_P.QUERY_FAILED, "Z"): _P.DONE,
    (_P.QUERY_FAILED, "E"): _P.QUERY_FAILED,  # the session is ended right after a failure
    (_P.SYNC, "Z"): _P.DONE,
    (_P.SYNC, "E"): _P.SYNC,  # a deferred constraint fails at the commit
    **{(phase, "E"): _P.FAILED for phase in _EXTENDED},
    **{(phase, "E"): _P.QUERY_FAILED for phase in _SIMPLE},
}

ASYNCHRONOUS: Final = frozenset("NSA")


@dataclass(frozen=True, slots=True)
class Request:
    """A client message that waits for its answer; ``note`` is whatever the caller ties to it."""

    kind: int
    note: object = None


class Answer(NamedTuple):
    """Whose a server message is (None: nobody's), whether it ends the answer, who was skipped."""

    request: Request | None
    finished: bool
    skipped: tuple[Request, ...] = ()


class Expectations:
    """The queue of outstanding requests of one server connection."""

    __slots__ = ("_copying", "_doubtful", "_phase", "_queue", "_skipping")

    def __init__(self) -> None:
        self._queue: deque[tuple[Request, Phase]] = deque()
        self._phase: Phase | None = None
        self._skipping = False
        self._copying = False
        self._doubtful = 0

    def __len__(self) -> int:
        """How many requests wait for an answer."""
        return sum(phase is not _P.COPY_END for _, phase in self._queue)

    @property
    def current(self) -> Request | None:
        """The request whose answer comes next."""
        self._drop_copy_ends()
        return self._queue[0][0] if self._queue else None

    @property
    def is_skipping(self) -> bool:
        """Whether the server ignores everything until the next Sync."""
        return self._skipping

    @property
    def is_copying_in(self) -> bool:
        """Whether the server reads COPY data: only CopyData, CopyDone and CopyFail make sense."""
        return self._copying

    def sent(self, kind: int, target: str = "P", note: object = None) -> bool:
        """A client message is about to go to the server. False: it is not to be forwarded.

        ``target`` is Describe's: ``S`` for a statement, ``P`` for a portal. What is not to be
        forwarded is what the server would skip after an error, or ignore while it reads COPY data.
        """
        letter = chr(kind)
        if letter == "F":
            raise Refused("the function call message is not allowed; use SELECT")
        if letter in SILENT:
            return letter == "X" or not self._skipping
        if letter in "cf":
            return self._copy_ends(kind)
        if letter not in STARTS:
            raise ProtocolViolation("a client message has no place in a session")
        if letter == "S":
            if self._copying:
                return False
            self._skipping = False
        elif self._skipping:
            return False
        phase = STARTS[letter]
        if letter == "D" and target == "S":
            phase = _P.DESCRIBE_STATEMENT
        self._queue.append((Request(kind, note), phase))
        return True

    def on(self, kind: int) -> Answer:
        """A server message came: whose is it, and is the answer complete?"""
        letter = chr(kind)
        if letter in ASYNCHRONOUS:
            return Answer(None, finished=False)
        self._drop_copy_ends()
        if not self._queue:
            return self._unasked(letter)
        request, start = self._queue[0]
        phase = TABLE.get((self._phase or start, letter))
        if phase is None:
            return self._unasked(letter)
        self._phase = phase
        if letter not in "ZE":
            self._doubtful = 0  # the server is past them
        if letter == "E":
            self._copying = False
        match phase:
            case _P.DONE:
                self._queue.popleft()
                self._phase = None
                self._copying = False
                return Answer(request, finished=True)
            case _P.FAILED:
                return self._fail(request)
            case _P.EXECUTE_COPY_IN | _P.QUERY_COPY_IN if letter == "G":
                self._enter_copy()
            case _P.QUERY:
                self._copying = False
        return Answer(request, finished=False)

    def _fail(self, request: Request) -> Answer:
        self._queue.popleft()
        self._phase = None
        skipped: list[Request] = []
        while self._queue and self._queue[0][1] is not _P.SYNC:
            other, phase = self._queue.popleft()
            if phase is not _P.COPY_END:
                skipped.append(other)
        self._skipping = not self._queue
        return Answer(request, finished=True, skipped=tuple(skipped))

    def _enter_copy(self) -> None:
        # Syncs that were sent before the COPY began and before its end: the server reads them
        # in COPY mode and ignores them, unless the COPY fails first.
        front = self._queue.popleft()
        while self._queue and self._queue[0][1] is _P.SYNC:
            self._queue.popleft()
            self._doubtful += 1
        self._copying = not (self._queue and self._queue[0][1] is _P.COPY_END)
        if not self._copying:
            self._queue.popleft()
        self._queue.appendleft(front)

    def _copy_ends(self, kind: int) -> bool:
        if self._skipping:
            return False
        if self._copying:
            self._copying = False
            return True
        # Sent before the server asked for data: it stands in the queue where it stands in the
        # stream, and is ignored there if no COPY is under way.
        self._queue.append((Request(kind), _P.COPY_END))
        return True

    def _drop_copy_ends(self) -> None:
        while self._queue and self._queue[0][1] is _P.COPY_END:
            self._queue.popleft()

    def _unasked(self, letter: str) -> Answer:
        if letter == "Z" and self._doubtful:
            self._doubtful -= 1
            self._skipping = False
            return Answer(None, finished=False)
        # A server that shuts down, or ends an idle session, says so unasked (57P01, 57P05).
        if letter == "E" and not self._queue:
            return Answer(None, finished=False)
        raise ProtocolViolation("the server sent a message that no request is due")
