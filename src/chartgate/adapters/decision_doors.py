"""Everything by which one process answers, on one event loop: HTTPS, Unix socket, sweep, numbers.

The rules kept: without TLS only this machine is listened to, and only if that was asked for; an
orderly end takes nothing new, answers what is under way, and then closes.

    doors = Doors(node, Opening(name="w1", port=0, plain=True), pager_key=bytes(32))
    await doors.open()        # doors.port
    await doors.close()
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Final, Protocol, cast

from chartgate.adapters.decision_desk import Answerer, Desk
from chartgate.adapters.decision_handshakes import TlsPort
from chartgate.adapters.decision_http import CHANNEL, WITHOUT_TLS, HttpDoor
from chartgate.adapters.decision_limits import DEFAULT, Limits
from chartgate.adapters.decision_metrics import Metrics
from chartgate.adapters.decision_pages import ServicePages
from chartgate.adapters.decision_process import fitted
from chartgate.adapters.decision_tls import Tls
from chartgate.adapters.decision_turns import Turns
from chartgate.adapters.decision_unix import UnixDoor, bound
from chartgate.app.authzen_paging import Pager
from chartgate.errors import Misconfigured

SWEEP_SECONDS: Final = 0.5
_SAVE_EVERY: Final = 4
_BACKLOG: Final = 1_024


class NotLoopback(Misconfigured):
    """Without TLS only this machine is listened to (45 CFR 164.312(e)(1))."""

    code = "not_loopback"


@dataclass(frozen=True, slots=True)
class Opening:
    """Where one worker listens. ``port`` None: not at all; 0: any."""

    name: str = "worker-1"
    host: str = "127.0.0.1"
    port: int | None = 0
    tls: Tls | None = None
    plain: bool = False
    """HTTP without TLS, on loopback."""
    unix: Path | None = None
    unix_link: socket.socket | None = None
    """A listening place that was bound by somebody else, and is shared."""
    unix_group: int | None = None
    users: Mapping[int, str] | None = None
    """See ``UnixDoor``."""
    base_url: str = ""
    limits: Limits = field(default=DEFAULT)
    metrics: Path | None = None
    """Folder in which the workers of a node keep their numbers."""
    access_log: bool = False


class _Late(Protocol):
    def late(self) -> None: ...


class Doors:
    """The doors of one node; the caller keeps the node."""

    def __init__(self, node: Answerer, opening: Opening, *, pager_key: bytes) -> None:
        check_opening(opening)
        opening = replace(opening, limits=fitted(opening.limits))
        self._loop = asyncio.get_running_loop()
        self._opening = opening
        self.metrics: Final = Metrics(opening.name, opening.metrics)
        self.desk: Final = Desk(node, self.metrics, Pager(pager_key))
        self.turns: Final = Turns(self._loop, opening.limits, self.metrics)
        self.pages: Final = ServicePages(node, self.metrics, base_url=opening.base_url)
        self.http: Final = HttpDoor(
            self._loop,
            self.desk,
            self.turns,
            self.pages,
            opening.limits,
            channel=CHANNEL if opening.tls is not None else WITHOUT_TLS,
            access_log=opening.access_log,
        )
        self.unix: Final = UnixDoor(
            self._loop, self.desk, self.turns, opening.limits, opening.users
        )
        self._servers: list[asyncio.AbstractServer | TlsPort] = []
        self._tls_port: TlsPort | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._swept = 0
        self.port = 0

    async def open(self) -> None:
        """Listen."""
        opening = self._opening
        if opening.port is not None:
            self._servers.append(await self._listen(opening))
        link = opening.unix_link
        if link is None and opening.unix is not None:
            link = bound(opening.unix, group=opening.unix_group)
        if link is not None:
            server = await self._loop.create_unix_server(
                self.unix.connection, sock=link, backlog=_BACKLOG
            )
            self._servers.append(server)
        self._sweep()

    async def _listen(self, opening: Opening) -> asyncio.AbstractServer | TlsPort:
        link = bound_port(opening.host, cast("int", opening.port))
        self.port = link.getsockname()[1]
        tls = opening.tls
        if tls is None:
            return await self._loop.create_server(self.http.connection, sock=link, backlog=_BACKLOG)
        port = self._tls_port = TlsPort(
            link, lambda: tls.context, self.http.connection, opening.limits, self.metrics
        )
        port.open(_BACKLOG)
        return port

    async def close(self) -> None:
        """Take nothing more, answer what is under way, close."""
        for server in self._servers:
            server.close()
        self.http.drain()
        self.unix.drain()
        ends = perf_counter() + self._opening.limits.drain_seconds
        while perf_counter() < ends and (self.http.connections or self.unix.connections):  # noqa: ASYNC110  two doors, for seconds at most
            await asyncio.sleep(0.01)
        for connection in tuple(self.http.connections):
            connection.abort()
        for link in tuple(self.unix.connections):
            link.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await asyncio.sleep(0)
        self.http.refusals.flush()
        self.unix.refusals.flush()
        await self.http.refusals.settled()
        await self.unix.refusals.settled()
        self.metrics.forget()

    def _sweep(self) -> None:
        self.http.sweep()
        self.unix.sweep()
        if self._tls_port is not None:
            self._tls_port.sweep()
        long_ago = perf_counter() - self._opening.limits.recording_seconds
        late = [one for one, began in self.turns.under_way.items() if began < long_ago]
        for exchange in late:
            cast("_Late", exchange).late()
        self.metrics.fold()
        self._swept += 1
        if self._opening.metrics is not None and self._swept % _SAVE_EVERY == 1:
            self.metrics.gauges["in_flight"] = len(self.turns.under_way)
            self.pages.gauge()
            self.metrics.save()
        self._timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)


def check_opening(opening: Opening) -> None:
    """Raise where TLS is missing."""
    if opening.port is None or opening.tls is not None:
        return
    if not opening.plain:
        raise Misconfigured("the decision service listens with TLS, unless it is told not to")
    if not is_loopback(opening.host):
        raise NotLoopback("without TLS the decision service listens on loopback only")


def is_loopback(host: str) -> bool:
    """Whether the name is this machine's own, and nobody else can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bound_port(host: str, port: int) -> socket.socket:
    """A listening place that the workers of a node share (SO_REUSEPORT)."""
    found = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    family, kind, protocol, _, address = found[0]
    link = socket.socket(family, kind, protocol)
    try:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        link.bind(address)
    except OSError as exc:
        link.close()
        raise Misconfigured(f"cannot listen at {host}:{port}: {exc.strerror}") from exc
    return link
