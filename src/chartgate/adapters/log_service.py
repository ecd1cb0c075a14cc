"""The log's one writer, as a process of its own: files, socket, and the checkpoint kept outside.

    python -m chartgate.adapters.log_service --state DIR

Rules kept: nothing is signed on top of a log that is not the one that was left (C2SP tlog-checkpoint);
the newest checkpoint is kept outside the log's folder, and a log whose checkpoint cannot be kept
takes nothing more; SIGTERM ends it after everything that was taken is on the medium and answered.
It holds no policy and no person: what may be recorded is for those who decide.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import chartgate
from chartgate.adapters.log_files import LogFiles
from chartgate.adapters.log_socket import AppDoor, LogSocket, serve_log_socket
from chartgate.adapters.log_verify import verify
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.signing import Signer, load_or_create_signer
from chartgate.adapters.state import RolledBack, State
from chartgate.errors import ChartgateError, Misconfigured
from chartgate.model.event import Event, NodeStarted, NodeStopped, Recovered, encode

CHECKPOINT_SECONDS: Final = 5.0
PART: Final = "audit log"
READY: Final = "the audit log takes entries"


class LogService:
    """The writer of one state folder, while ``async with`` lasts. ``now`` answers the time in UTC.

    ``door`` lets applications of other users in, at ``door_path``: the state folder is closed to
    them, so their socket stands elsewhere.
    """

    def __init__(
        self,
        state: State,
        node: str,
        origin: str,
        *,
        door: AppDoor | None = None,
        door_path: Path | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._state = state
        self._node = node
        self._origin = origin
        self._door = door
        self._door_path = door_path
        self._now = now
        self._sockets: list[LogSocket] = []
        self._ending = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    @property
    def log(self) -> LogWriter:
        """The log, for whoever decides in this very process."""
        return self._log

    async def __aenter__(self) -> Self:
        state = self._state
        signer = load_or_create_signer(state.log_key, self._origin)
        recovered: list[tuple[int, str]] = []
        self._files = open_same_log(state, signer, lambda *dropped: recovered.append(dropped))
        self._log = LogWriter(self._files)
        try:
            at, node = self._at(), self._node
            events: list[Event] = [
                Recovered(
                    at=at, node=node, dropped_bytes=size, dropped_sha256=digest, size=self._log.size
                )
                for size, digest in recovered
            ]
            software = f"chartgate {chartgate.__version__}"
            started = NodeStarted(
                at=at,
                node=node,
                policy_set="",
                data_map="",
                software=software,
                detail={"part": PART},
            )
            await self._log.append([encode(event) for event in (*events, started)])
            # Our own processes first; applications come by a socket of their own, if at all.
            await self._listen(state.log_socket, self._door if self._door_path is None else None)
            if self._door_path is not None:
                await self._listen(self._door_path, self._door)
        except BaseException:
            await self._close()
            raise
        self._keeping = asyncio.get_running_loop().create_task(
            keep_checkpoint(self._state, self._log, self._files, self._ending)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending.set()
        try:
            for listening in self._sockets:
                await listening.close()
            if self._keeping is not None:
                await self._keeping  # what it writes must not come after what is written last
            stopped = NodeStopped(at=self._at(), node=self._node, reason=f"{PART}: asked to stop")
            await self._log.append([encode(stopped)])
        finally:
            await self._close()

    async def _listen(self, path: Path, door: AppDoor | None) -> None:
        self._sockets.append(
            await serve_log_socket(path, self._log, node=self._node, origin=self._origin, door=door)
        )

    async def _close(self) -> None:
        for listening in self._sockets:
            await listening.close()
        await self._log.close()
        self._state.save_checkpoint(self._files.checkpoint)

    def _at(self) -> str:
        stamp = self._now().astimezone(UTC).isoformat(timespec="microseconds")
        return stamp.replace("+00:00", "Z")


def open_same_log(
    state: State, signer: Signer, on_recovered: Callable[[int, str], None]
) -> LogFiles:
    """Open the log, if it is the one that was left: nothing is signed on top of another.

    The checkpoint kept outside its folder says so; the first start has none.
    """
    known = state.known_checkpoint()
    if known is not None and not any(state.log_dir.glob("wal-*")):
        raise RolledBack(f"the audit log in {state.log_dir} is gone; its checkpoint is still there")
    files = LogFiles.open(state.log_dir, signer, on_recovered=on_recovered)
    try:
        if known is not None:
            verify(state.log_dir, signer.vkey, known)
    except BaseException:
        files.poison("it is not the log that was left")
        files.close()
        raise
    return files


async def keep_checkpoint(
    state: State, log: LogWriter, files: LogFiles, ending: asyncio.Event
) -> None:
    """Keep the newest checkpoint outside the log's folder, where its verifier looks for it."""
    kept = ""
    while not ending.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), CHECKPOINT_SECONDS)
        checkpoint = log.checkpoint
        if checkpoint == kept:
            continue
        try:
            await asyncio.to_thread(state.save_checkpoint, checkpoint)
        except (ChartgateError, OSError, ValueError) as exc:
            # Evidence that cannot be checked from outside is not worth releasing data for.
            files.poison(f"its checkpoint cannot be kept ({type(exc).__name__})")
            return
        kept = checkpoint


async def run(state: State, node: str, origin: str) -> None:
    """Serve until SIGTERM or SIGINT; says on standard output when it is ready."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    async with LogService(state, node, origin):
        print(READY, flush=True)
        await ending.wait()


def main() -> int:
    """The process: one line on standard error for whatever stands in the way."""
    parser = argparse.ArgumentParser(description="The audit log's one writer.")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--node", help="name of this node (default: the instance's)")
    parser.add_argument(
        "--origin", help="origin of the log's checkpoints (default: the instance's)"
    )
    given = parser.parse_args()
    state = State(given.state)
    try:
        node, origin = given.node, given.origin
        if node is None or origin is None:
            instance = state.instance()
            node, origin = node or instance.node, origin or instance.origin
        state.create()
        with contextlib.suppress(ImportError):
            import uvloop

            uvloop.run(run(state, node, origin))
            return 0
        asyncio.run(run(state, node, origin))
    except ChartgateError as exc:
        print(f"{exc.code}: {exc}", file=sys.stderr)
        return 1
    except OSError as exc:
        failure = Misconfigured(f"the audit log's writer: {exc.strerror}")
        print(f"{failure.code}: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
