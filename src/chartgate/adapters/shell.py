"""Performs what the gateway's conversation yields: waits, sockets and the log, for one session.

Backpressure is here: a client that does not read is waited for, and after a while given up; what
it asked for is stopped at the source by whoever owns the session.
"""

import asyncio
from collections.abc import Generator
from typing import Any

from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.upstream import Upstream
from chartgate.adapters.wire import ConnectionEnded, Signal, Wire
from chartgate.app.commands import (
    Await,
    Command,
    FromClient,
    FromServer,
    Note,
    Post,
    Record,
    ToClient,
    ToServer,
)
from chartgate.errors import ChartgateError, LogUnavailable
from chartgate.model.event import Event, encode
from chartgate.pgwire.frames import Frame
from chartgate.pgwire.messages import error


class IdleSession(ChartgateError):
    """Nothing was asked, or read, for too long (45 CFR 164.312(a)(2)(iii))."""

    code = "idle_session"
    sqlstate = "57P05"


class Shell:
    """One client, one connection to the source, and the log."""

    def __init__(
        self, client: Wire, upstream: Upstream, log: LogWriter, *, idle_seconds: float
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._log = log
        self._idle_seconds = idle_seconds
        self._either = client.signal = upstream.wire.signal = Signal()

    async def run(self, talk: Generator[Command, Any, str]) -> str:
        """Drive the conversation to its end; answers why it ended."""
        client = self._client
        answer: Any = None
        failure: LogUnavailable | None = None
        try:
            while True:
                command = talk.throw(failure) if failure is not None else talk.send(answer)
                answer = failure = None
                try:
                    answer = await self._perform(command)
                except LogUnavailable as exc:
                    failure = exc
        except StopIteration as end:
            return str(end.value)
        except IdleSession as exc:
            client.write(error(exc.sqlstate, str(exc), severity="FATAL"))
            return "idle"
        except ConnectionEnded:
            if client.is_ended:
                return "connection lost"
            client.write(error("08006", "the source database ended the session", severity="FATAL"))
            return "source ended"

    async def _perform(self, command: Command) -> Any:
        client, upstream, server = self._client, self._upstream, self._upstream.wire
        match command:
            case FromClient():
                upstream.is_busy = False
                return await self._from_client()
            case FromServer():
                while not server.has_frames:
                    server.check()
                    if client.is_ended:
                        raise ConnectionEnded("the client has left")
                    await self._either.wait()
                return server.take_runs()
            case ToServer(data):
                # Not drained: a batch is bounded, and a server that waits for us to read its
                # answers must not be waited for to read its questions.
                upstream.is_busy = True
                server.write(data)
            case ToClient(data):
                client.write(data)
                await self._drain(client)
                client.check()
            case Record(events):
                return await self._log.append(_entries(events))
            case Post(events):
                return await self._log.place(_entries(events))
            case Await(index):
                await self._log.settled(index)
            case Note(events):
                self._log.post(_entries(events))
        return None

    async def _drain(self, client: Wire) -> None:
        if not client.is_full:
            return
        try:
            async with asyncio.timeout(self._idle_seconds):
                await client.drain()
        except TimeoutError:
            client.abort()  # it would not read the reason either
            raise IdleSession("the client did not read its answer") from None

    async def _from_client(self) -> Frame | None:
        client, server = self._client, self._upstream.wire
        if not client.has_frames:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    while not client.has_frames:
                        client.check()
                        server.check()
                        if server.has_frames:
                            return None
                        await self._either.wait()
            except TimeoutError:
                minutes = self._idle_seconds / 60
                raise IdleSession(
                    f"the session was idle for {minutes:g} minutes and has ended; log in again"
                ) from None
        frame = client.take_frame()
        assert isinstance(frame, Frame)
        return frame


def _entries(events: tuple[Event, ...]) -> tuple[bytes, ...]:
    return tuple(encode(event) for event in events)
