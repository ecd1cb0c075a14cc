"""The decision service of one instance: its workers, and the writer of its log, kept running.

The rules kept: workers are processes, so that one that dies takes no answer of another with it (the
writer is one more, unless there is one worker only, which then writes the log itself);
what died is started again, less and less often; while the writer is away the workers answer 503, and
never a decision that is not recorded. An orderly end goes in the order of what depends on what:
nothing new is taken, what is under way is answered, the writer is last.

    async with DecisionService(ServiceConfig(root=str(state.root))) as service:
        service.port, service.authority
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import msgspec

from chartgate.adapters.decision_doors import Opening, bound_port, check_opening
from chartgate.adapters.decision_unix import bound
from chartgate.adapters.decision_worker import (
    DECIDES,
    WRITES,
    Said,
    ServiceConfig,
    Task,
    authority,
    prepare,
    renew,
    tls_of,
)
from chartgate.errors import ChartgateError, Misconfigured

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_STEADY_SECONDS: Final = 30.0

_logger = logging.getLogger(__name__)


class ServiceFailed(ChartgateError):
    """A process of the decision service does not start; the message is its own."""

    code = "service_failed"


class DecisionService:
    """Use as an async context manager; entering returns once every process serves.

    The caller holds the instance's lock.
    """

    def __init__(self, config: ServiceConfig) -> None:
        self.config = config
        self.port = 0
        self._kept: list[_Kept] = []
        self._held: list[socket.socket] = []
        self._socket: tuple[int, int] | None = None

    @property
    def authority(self) -> Path | None:
        """The file that callers have to trust; None where that is not ours to say."""
        return authority(self.config)

    @property
    def pids(self) -> dict[str, int]:
        """The processes that run now, by name."""
        return {kept.name: kept.pid for kept in self._kept if kept.pid}

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _start(self) -> None:
        config = self.config
        prepare(config)
        check_opening(
            Opening(host=config.host, port=config.port, plain=config.plain, tls=tls_of(config))
        )
        fds: tuple[int, ...] = ()
        if config.port is not None:
            # bound but not listening: the port stays ours while workers come and go
            link = bound_port(config.host, config.port)
            self._held.append(link)
            self.port = link.getsockname()[1]
            config = self.config = msgspec.structs.replace(config, port=self.port)
        if config.unix:
            unix = bound(Path(config.unix), group=config.unix_group)
            self._socket = _identity(Path(config.unix))
            unix.listen(1_024)
            self._held.append(unix)
            fds = (unix.fileno(),)
        is_alone = config.own_writer and config.workers == 1
        if config.own_writer and not is_alone:
            writer = _Kept(Task(role=WRITES, number=1, config=config), ())
            self._kept.append(writer)
            await writer.start()
        workers = [
            _Kept(
                Task(
                    role=DECIDES,
                    number=n,
                    config=config,
                    writes=is_alone,
                    unix_fd=fds[0] if fds else -1,
                ),
                fds,
            )
            for n in range(1, config.workers + 1)
        ]
        self._kept += workers
        await asyncio.gather(*(worker.start() for worker in workers))

    async def stop(self) -> None:
        """End in order."""
        await asyncio.gather(*(kept.stop() for kept in self._kept if kept.is_worker))
        for kept in self._kept:
            if not kept.is_worker:
                await kept.stop()
        self._kept.clear()
        for link in self._held:
            link.close()
        self._held.clear()
        self._unlink()

    def _unlink(self) -> None:
        """Take our socket away; what was in our way, or took our place since, stays."""
        ours, self._socket = self._socket, None
        path = Path(self.config.unix)
        if ours is not None and _identity(path) == ours:
            path.unlink(missing_ok=True)

    def reload(self) -> None:
        """The workers read their certificates again; one of ours is renewed, if it is due."""
        try:
            renew(self.config)
        except (ChartgateError, OSError) as exc:
            _logger.error("the certificate is not renewed: %s", type(exc).__name__)  # noqa: TRY400
        for kept in self._kept:
            if kept.is_worker:
                kept.signal(signal.SIGHUP)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file of the disk is there, if any."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Kept:
    """One process that is to run."""

    def __init__(self, task: Task, fds: tuple[int, ...]) -> None:
        self._task = task
        self._fds = fds
        self.name: Final = f"{task.role}-{task.number}"
        self.is_worker: Final = task.role == DECIDES
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._is_ending = False

    @property
    def pid(self) -> int:
        """The process that runs now; 0 while there is none."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else 0

    async def start(self) -> None:
        """Start it; raises ``ServiceFailed``."""
        self._process = await self._spawn()
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name=self.name)

    async def _spawn(self) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # whoever can write where we were started must not become our code
            "-m",
            "chartgate.adapters.decision_worker",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=self._fds,
            start_new_session=True,  # a Ctrl-C is ours to pass on, in order
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(msgspec.json.encode(self._task) + b"\n")
            async with asyncio.timeout(START_SECONDS):
                await process.stdin.drain()
                line = await process.stdout.readline()
            said = msgspec.json.decode(line, type=Said) if line else Said(failed="it ended")
            if said.failed:
                raise ServiceFailed(f"{self.name} does not start: {said.failed}")
        except BaseException as exc:
            await _end(process)
            if isinstance(exc, TimeoutError):
                raise ServiceFailed(f"{self.name} does not start in time") from exc
            if isinstance(exc, (OSError, msgspec.MsgspecError)):
                raise ServiceFailed(f"{self.name} ended while it started") from exc
            raise
        return process

    async def _keep(self) -> None:
        loop, pause = asyncio.get_running_loop(), _FIRST_PAUSE
        while True:
            assert self._process is not None
            began = loop.time()
            code = await _over(self._process)
            if self._is_ending:
                return
            _logger.error("%s ended by itself (%d); it is started again", self.name, code)
            if loop.time() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            while True:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                try:
                    self._process = await self._spawn()
                    break
                except (ServiceFailed, OSError) as exc:
                    _logger.error("%s", exc)  # noqa: TRY400  its words are ours
            _logger.info("%s runs again", self.name)

    async def stop(self) -> None:
        """End it in order; it is killed if it does not."""
        self._is_ending = True
        if self._process is not None:
            await _end(self._process)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    def signal(self, number: int) -> None:
        """Pass a signal on."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)


async def _end(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await _over(process)
    except TimeoutError:
        process.kill()
        await _over(process)


async def _over(process: Process) -> int:
    """Wait for its end, and let go of its pipes."""
    code = await process.wait()
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(OSError):
        await process.stdin.wait_closed()
    assert process.stdout is not None
    await process.stdout.read()  # until its end: then the pipe is closed
    return code


async def run(config: ServiceConfig, *, on_ready: Callable[[DecisionService], None]) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads the certificates again. For a command."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    async with DecisionService(config) as service:
        loop.add_signal_handler(signal.SIGHUP, service.reload)
        on_ready(service)
        notify("READY=1")
        await ending.wait()
        notify("STOPPING=1")


def notify(words: str) -> None:
    """Tell systemd, where it wants to be told (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.connect(address)
        link.send(words.encode())


__all__ = ["DecisionService", "Misconfigured", "ServiceConfig", "ServiceFailed", "notify", "run"]
