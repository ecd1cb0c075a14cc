"""One process of the decision service: a worker that decides, or the one writer of the log.

Started by ``decision_service`` as ``python -m chartgate.adapters.decision_worker``; what it is to do
comes as one line of JSON on standard input. It says one line on standard output when it serves, or
what stands in the way. It ends in order when told to (SIGTERM), and when whoever started it is gone:
then its standard input ends.

The rules kept: one process writes the log, be it the only worker or a writer of its own; without its
node or its log a worker answers 503; a log that has failed is given up, and opened by a new process.
"""

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import uvloop

from chartgate.adapters.decision_doors import Doors, Opening
from chartgate.adapters.decision_logs import log_to_stderr
from chartgate.adapters.decision_process import harden
from chartgate.adapters.decision_tls import CERTIFICATE, KEY, Tls, own_certificate
from chartgate.adapters.keys import KeyStore
from chartgate.adapters.state import State
from chartgate.errors import ChartgateError, LogUnavailable, Misconfigured

DECIDES: Final = "decide"
WRITES: Final = "write"
PAGER_KEY: Final = "pages.key"
SWITCH_SECONDS: Final = 0.0003
_EXIT: Final = 3
_WATCH_SECONDS: Final = 1.0

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chartgate.adapters.audit_log import AuditLog
    from chartgate.adapters.log_writer import LogWriter
    from chartgate.adapters.node import Node
    from chartgate.adapters.node_plain import PlainNode
    from chartgate.app.evaluation_events import CachedTokens

_logger = logging.getLogger(__name__)


class ServiceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the decision service of one instance is to be."""

    root: str
    """The state folder."""
    workers: int = 1
    host: str = "127.0.0.1"
    port: int | None = 8181
    """None: no HTTP; 0: any."""
    plain: bool = False
    """HTTP without TLS, on loopback alone."""
    certificate: str = ""
    """PEM files; without them the instance makes its own."""
    key: str = ""
    callers: str = ""
    """PEM file of the authority for callers' certificates (mTLS)."""
    names: tuple[str, ...] = ()
    """More names of this machine, for a certificate of its own."""
    unix: str = ""
    unix_group: int | None = None
    users: dict[int, str] | None = None
    """Users that are heard at the Unix socket -> the service each is, or empty: it has a token."""
    base_url: str = ""
    """The address that callers know, as behind a proxy; empty: the one each has asked."""
    access_log: bool = False
    durability: str = "fsync"
    """``append``: decisions that release no PHI are answered up to 5 ms before they are on disk."""
    policies: str = ""
    """A folder: decide by it, without control plane and people (``PlainNode``)."""
    entities: str = ""
    services: str = ""
    """TOML file of the services that may ask, where there is no control plane."""
    node: str = "plain"
    """Name of the node and origin of its log, where there is no control plane."""
    origin: str = "chartgate.local/plain"
    own_writer: bool = True
    """Whether the log's writer is started here; else another process of the instance serves it."""

    @property
    def state(self) -> State:
        """The folder, as paths."""
        return State(Path(self.root))


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What one process is told."""

    role: str
    number: int
    config: ServiceConfig
    writes: bool = False
    """A worker that is alone writes the log itself: no other process is asked for each entry."""
    unix_fd: int = -1
    """A listening place that all workers share."""


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one process says once it serves."""

    port: int = 0
    failed: str = ""


def prepare(config: ServiceConfig) -> None:
    """See that what the workers share exists; raises ``Misconfigured``."""
    if config.durability not in ("fsync", "append"):
        raise Misconfigured("durability is fsync or append")
    if bool(config.certificate) is not bool(config.key):
        raise Misconfigured("a certificate and its key are given together")
    if not 1 <= config.workers <= 64:
        raise Misconfigured("there are 1 to 64 workers")
    if config.port is None and not config.unix:
        raise Misconfigured("the decision service listens nowhere")
    if bool(config.policies) is not bool(config.services):
        raise Misconfigured("a policy folder and the services that may ask are given together")
    state = config.state
    state.create()
    KeyStore(state.keys_dir).create(PAGER_KEY, secrets.token_bytes(32))
    renew(config)


def renew(config: ServiceConfig) -> None:
    """See that a certificate of the instance's own has not ended, nor will it soon."""
    if authority(config) is not None:
        own_certificate(config.state.tls_dir, datetime.now(UTC), config.names)


def authority(config: ServiceConfig) -> Path | None:
    """The file that callers have to trust; None where that is not ours to say."""
    is_ours = config.port is not None and not config.plain and not config.certificate
    return config.state.authority if is_ours else None


def tls_of(config: ServiceConfig) -> Tls | None:
    """What TLS is made with."""
    if config.plain or config.port is None:
        return None
    own = config.state.tls_dir
    return Tls(
        Path(config.certificate) if config.certificate else own / CERTIFICATE,
        Path(config.key) if config.key else own / KEY,
        callers=Path(config.callers) if config.callers else None,
    )


async def decide(task: Task, ending: asyncio.Event) -> None:
    """Decide until told to end."""
    config, state = task.config, task.config.state
    pager_key = KeyStore(state.keys_dir).read(PAGER_KEY)
    assert pager_key is not None, "prepare() makes it"
    tls = tls_of(config)
    opening = Opening(
        name=f"{DECIDES}-{task.number}",
        host=config.host,
        port=config.port,
        tls=tls,
        plain=config.plain,
        unix_link=socket.socket(fileno=task.unix_fd) if task.unix_fd >= 0 else None,
        users=config.users,
        base_url=config.base_url,
        metrics=state.sockets,
        access_log=config.access_log,
    )
    async with _log(task, ending) as log, _node(task, log) as node:
        doors = Doors(node, opening, pager_key=pager_key)
        if tls is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, tls)
        await doors.open()
        # what exists now lives as long as the process: the collector need not look at it again
        gc.collect()
        gc.freeze()
        _say(Said(port=doors.port))
        await ending.wait()
        await doors.close()


async def write(task: Task, ending: asyncio.Event) -> None:
    """Serve the log until told to end."""
    async with _own_log(task, ending):
        _say(Said())
        await ending.wait()


@contextlib.asynccontextmanager
async def _log(task: Task, ending: asyncio.Event) -> "AsyncIterator[AuditLog]":
    if task.writes:
        async with _own_log(task, ending) as own:
            yield own
    else:
        from chartgate.adapters.log_remote import RemoteLog

        async with RemoteLog(task.config.state.log_socket) as remote:
            yield remote


@contextlib.asynccontextmanager
async def _own_log(task: Task, ending: asyncio.Event) -> "AsyncIterator[LogWriter]":
    from chartgate.adapters.log_service import LogService

    config, state = task.config, task.config.state
    node, origin, door = config.node, config.origin, None
    if not config.policies:
        from chartgate.adapters.decision_apps import ApplicationAccounts
        from chartgate.adapters.log_admission import AppDoor

        instance = state.instance()
        node, origin = instance.node, instance.origin
        accounts = ApplicationAccounts(instance.control)
        door = AppDoor(accounts.verify, _tokens(state, instance.source))
    async with LogService(state, node, origin, door=door) as service:
        watching = asyncio.get_running_loop().create_task(watch(service.log, ending))
        try:
            yield service.log
        finally:
            watching.cancel()
            await asyncio.wait([watching])


async def watch(log: "LogWriter", ending: asyncio.Event) -> None:
    """A log that has failed takes nothing more: a new process opens it anew, if that can be done."""
    while not ending.is_set():
        await asyncio.sleep(_WATCH_SECONDS)
        try:
            await log.head()
        except LogUnavailable as exc:
            _logger.error("%s", exc)  # noqa: TRY400  its words are ours
            ending.set()


def _node(task: Task, log: "AuditLog") -> "Node | PlainNode":
    config, state = task.config, task.config.state
    durable, number = config.durability == "fsync", f"{DECIDES}-{task.number}"
    if not config.policies:
        from chartgate.adapters.node import Node

        instance = state.instance()
        return Node(state, instance, f"{instance.node}/{number}", log, durable=durable)
    from chartgate.adapters.node_plain import PlainNode, load_services

    return PlainNode(
        f"{config.node}/{number}",
        config.origin,
        log,
        _tokens(state, config.node),
        policies=Path(config.policies),
        entities=Path(config.entities) if config.entities else None,
        services=load_services(Path(config.services)),
        durable=durable,
    )


def _tokens(state: State, issuer: str) -> "CachedTokens":
    from chartgate.adapters.keys import TokenKeys
    from chartgate.app.evaluation_events import CachedTokens
    from chartgate.app.tokens import PatientTokens

    keys = TokenKeys(KeyStore(state.keys_dir), create=True)
    return CachedTokens(PatientTokens(keys, issuer))


def _reload(tls: Tls) -> None:
    try:
        tls.reload()
    except Misconfigured as exc:
        _logger.warning("the certificates stay as they were: %s", exc)
    else:
        _logger.info("the certificates were read again")


def _say(said: Said) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
    sys.stdout.buffer.flush()


async def _run(task: Task) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    loop.add_reader(sys.stdin.fileno(), ending.set)  # nothing more comes: it can only end
    loop.set_exception_handler(_unhandled)
    await (write if task.role == WRITES else decide)(task, ending)


def _unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    exc = context.get("exception")
    _logger.error("the event loop: %s", type(exc).__name__ if exc else "a fault")


def main() -> None:
    """The process."""
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)
    os.umask(0o077)
    harden()
    log_to_stderr(f"{task.role}-{task.number}")
    gc.set_threshold(20_000, 20, 50)
    # A thread that has synced the log is waited for by everybody: Python gives way sooner than its 5 ms.
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        uvloop.run(_run(task))
    except ChartgateError as exc:
        _say(Said(failed=str(exc)))
        sys.exit(_EXIT)
    except OSError as exc:
        with contextlib.suppress(OSError):
            _say(Said(failed=exc.strerror or type(exc).__name__))
        sys.exit(_EXIT)


if __name__ == "__main__":
    main()
