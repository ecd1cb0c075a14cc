"""The TLS port of one worker: connections are taken, and a few at a time shake hands.

The rules kept: a handshake costs as much as some ten decisions, so callers who all come at once
(after a restart, or on purpose) wait for each other, and the questions under way do not wait for
them; whoever waits, or is slow, has an end; addresses take turns, and none has more than half of
the places, and nobody has one before her greeting (the first record, a ClientHello) is there; of
those who say nothing the oldest gives way; where others wait, a handshake that takes longer than
``PRESSED_SECONDS`` ends. So callers that begin handshakes and leave them keep nobody else out.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, NamedTuple

from chartgate.adapters.decision_limits import Limits
from chartgate.adapters.decision_metrics import Metrics

PRESSED_SECONDS: Final = 1.5
_AT_ONCE: Final = 64
"""Connections taken between two looks at the others."""
_PAUSE_SECONDS: Final = 0.5
"""After the machine has refused one: it has no room."""

_RECORD: Final = 5
"""Bytes before a record of TLS: its kind, version and length (RFC 8446, 5.1) …"""
_HANDSHAKE: Final = 0x16
_LONGEST: Final = 16_384
"""… and the most that it holds."""
_PART_SECONDS: Final = 0.05
"""When the rest of a greeting is looked for."""

_logger = logging.getLogger(__name__)


class _Arrived(NamedTuple):
    link: socket.socket
    address: str
    until: float


class _Begun(NamedTuple):
    link: socket.socket
    address: str
    at: float


class TlsPort:
    """Listens at ``link``; whoever has shaken hands, by the ``context()`` of now, goes to a new
    ``connection()``."""

    def __init__(
        self,
        link: socket.socket,
        context: Callable[[], ssl.SSLContext],
        connection: Callable[[], asyncio.Protocol],
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self._link: Final = link
        self._context: Final = context
        self._connection: Final = connection
        self._limits: Final = limits
        self._metrics: Final = metrics
        self._waiting: OrderedDict[str, deque[_Arrived]] = OrderedDict()
        self._count = 0
        self._silent: OrderedDict[socket.socket, _Arrived] = OrderedDict()
        self._shaking: dict[asyncio.Task[None], _Begun] = {}
        self._by_address: dict[str, int] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def under_way(self) -> int:
        """Handshakes begun and not ended."""
        return len(self._shaking)

    def open(self, backlog: int) -> None:
        """Listen."""
        self._link.setblocking(False)
        self._link.listen(backlog)
        self._loop.add_reader(self._link.fileno(), self._take)

    def close(self) -> None:
        """Take nothing more; who has not shaken hands by now is let go."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._retry is not None:
            self._retry.cancel()
        else:
            self._loop.remove_reader(self._link.fileno())
        self._link.close()
        while self._silent:
            self._dismiss(next(iter(self._silent)))
        for queue in self._waiting.values():
            for arrived in queue:
                arrived.link.close()
        self._waiting.clear()
        for task in tuple(self._shaking):
            task.cancel()

    def sweep(self) -> None:
        """Twice a second: whoever has waited too long is let go."""
        now = self._loop.time()
        while self._silent and next(iter(self._silent.values())).until <= now:
            self._metrics.count("cut_off")
            self._dismiss(next(iter(self._silent)))
        for address, queue in tuple(self._waiting.items()):
            while queue and queue[0].until <= now:
                self._metrics.count("cut_off")
                self._leave(address, queue).link.close()
        self._relieve(now)
        self._metrics.gauges["handshakes"] = self.under_way

    def _take(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                link, address = self._link.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as exc:
                # no more files: what waits in the system's queue waits there
                _logger.warning("connections cannot be taken: %s", exc.strerror)
                self._loop.remove_reader(self._link.fileno())
                self._retry = self._loop.call_later(_PAUSE_SECONDS, self._again)
                break
            link.setblocking(False)
            if len(self._silent) >= self._limits.handshakes_waiting:
                self._metrics.count("refused_connections")
                self._dismiss(next(iter(self._silent)))
            until = self._loop.time() + self._limits.handshake_seconds
            self._silent[link] = _Arrived(link, str(address[0]), until)
            self._listen_to(link)

    def _dismiss(self, link: socket.socket) -> None:
        """Whoever has not greeted is let go."""
        del self._silent[link]
        self._loop.remove_reader(link.fileno())
        link.close()

    def _listen_to(self, link: socket.socket) -> None:
        if link in self._silent:
            self._loop.add_reader(link.fileno(), self._said, link)

    def _said(self, link: socket.socket) -> None:
        """Something came: whether it is a whole greeting."""
        try:
            seen = link.recv(_RECORD + _LONGEST, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            seen = b""
        size = int.from_bytes(seen[3:_RECORD]) if len(seen) >= _RECORD else 0
        if not seen or seen[0] != _HANDSHAKE or size > _LONGEST:
            self._dismiss(link)  # gone, or does not speak TLS
            return
        self._loop.remove_reader(link.fileno())
        if len(seen) < _RECORD + size:
            # a place is for those who can go on
            self._loop.call_later(_PART_SECONDS, self._listen_to, link)
            return
        self._came(self._silent.pop(link))
        self._begin()

    def _again(self) -> None:
        self._retry = None
        self._loop.add_reader(self._link.fileno(), self._take)

    def _came(self, arrived: _Arrived) -> None:
        address, most = arrived.address, self._limits.handshakes_waiting
        queue = self._waiting.get(address)
        if self._count >= most or (queue is not None and len(queue) >= most * 3 // 4):
            self._metrics.count("refused_connections")
            arrived.link.close()
            return
        if queue is None:
            queue = self._waiting[address] = deque()
        queue.append(arrived)
        self._count += 1

    def _leave(self, address: str, queue: deque[_Arrived]) -> _Arrived:
        arrived = queue.popleft()
        self._count -= 1
        if not queue:
            del self._waiting[address]
        return arrived

    def _begin(self) -> None:
        while len(self._shaking) < self._limits.handshakes:
            arrived = self._next()
            if arrived is None:
                return
            task = self._loop.create_task(self._shake(arrived))
            address = arrived.address
            self._shaking[task] = _Begun(arrived.link, address, self._loop.time())
            self._by_address[address] = self._by_address.get(address, 0) + 1
            task.add_done_callback(self._done)

    def _next(self) -> _Arrived | None:
        share = max(1, self._limits.handshakes // 2)
        for address, queue in self._waiting.items():
            # at most two can have their share already, so this is soon over
            if self._by_address.get(address, 0) < share:
                self._waiting.move_to_end(address)
                return self._leave(address, queue)
        return None

    def _relieve(self, now: float) -> None:
        """Whoever holds a place and is slow gives way to whoever waits for one."""
        waits = self._count
        for begun in self._shaking.values():
            if not waits or begun.at > now - PRESSED_SECONDS:
                break  # they are in the order in which they were begun
            waits -= 1
            self._metrics.count("cut_off")
            with contextlib.suppress(OSError):
                begun.link.shutdown(socket.SHUT_RDWR)  # its transport sees the end, and closes it

    def _done(self, task: "asyncio.Task[None]") -> None:
        address = self._shaking.pop(task).address
        left = self._by_address[address] - 1
        if left:
            self._by_address[address] = left
        else:
            del self._by_address[address]
        if not self._is_closed:
            self._begin()

    async def _shake(self, arrived: _Arrived) -> None:
        seconds = arrived.until - self._loop.time()
        if seconds <= 0:
            self._metrics.count("cut_off")
            arrived.link.close()
            return
        # who does not speak TLS, or leaves, is nobody: there is nothing to tell
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
            await self._loop.connect_accepted_socket(
                self._connection,
                arrived.link,
                ssl=self._context(),
                ssl_handshake_timeout=seconds,
            )
