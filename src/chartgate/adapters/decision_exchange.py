"""One request at the HTTPS door, and its answer."""

import logging
from time import perf_counter
from typing import TYPE_CHECKING, Final

from chartgate.adapters.decision_desk import OVERLOADED, UNRECORDED
from chartgate.adapters.decision_http1 import Head
from chartgate.adapters.decision_replies import JSON, Extra, head_of
from chartgate.adapters.decision_turns import Answering
from chartgate.app.node_asked import Caller

if TYPE_CHECKING:
    from chartgate.adapters.decision_http import HttpConnection

_access: Final = logging.getLogger("chartgate.access")


class Exchange:
    """Asked once, answered once; a ``Ticket`` where it has to wait for its turn."""

    __slots__ = (
        "arrived", "body", "caller", "connection", "head", "operation", "reply", "share", "task",
        "weight",
    )  # fmt: skip

    def __init__(self, connection: "HttpConnection", head: Head) -> None:
        self.connection = connection
        self.head = head
        self.arrived = perf_counter()
        self.reply: bytes | None = None
        self.weight = 0
        self.operation = ""
        self.body = b""
        self.caller: Caller | None = None
        self.share = ""
        self.task: Answering | None = None

    def begin(self) -> None:
        """Its turn has come."""
        door = self.connection.door
        assert self.caller is not None
        body, self.body = self.body, b""
        answering = door.desk.ask(self.operation, body, self.caller, self.head.trace)
        self.task = door.turns.carry_out(self, answering, self._decided)

    def give_up(self) -> None:
        """It waited too long."""
        door = self.connection.door
        door.desk.metrics.count("refused_overload")
        self.answer(503, OVERLOADED, Extra.RETRY)

    def late(self) -> None:
        """It is not recorded in time: whoever asked is told so, whatever becomes of the entry."""
        if self.task is not None:
            self.task.cancel()

    def _decided(self, task: Answering) -> None:
        self.connection.door.turns.ended(self)
        self.task = None
        if task.cancelled():
            status, body = 503, UNRECORDED
        else:
            status, body = task.result()
        self.answer(status, body, Extra.RETRY if status == 503 else Extra.NONE)

    def answer(
        self, status: int, body: bytes, extra: bytes = Extra.NONE, kind: bytes = JSON
    ) -> None:
        """Write the answer, once it is its turn."""
        connection, head = self.connection, self.head
        door = connection.door
        closes = not head.keep_alive or connection.is_closing or door.is_draining
        self.reply = head_of(
            status, len(body), door.stamp, kind=kind, extra=extra, request_id=head.request_id,
            trace=head.trace, closes=closes,
        ) + (b"" if head.method == "HEAD" else body)  # fmt: skip
        if closes:
            connection.is_closing = True
        took = perf_counter() - self.arrived
        metrics = door.desk.metrics
        if status == 200 and self.operation:
            metrics.stages["total"].add(took)
        metrics.requested(self.operation or "other", status)
        if door.access_log:
            _access.info(
                "request",
                extra={
                    "endpoint": self.operation or "other",
                    "status": status,
                    "micros": round(took * 1e6),
                    "service": self.caller.service.name if self.caller is not None else "",
                },
            )
        connection.flush()
