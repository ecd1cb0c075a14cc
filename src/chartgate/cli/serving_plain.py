"""The decision service without a control plane: a policy folder, entities and applications in files.

Rules kept: what the files say is read strictly, and counts until SIGHUP reads them again; every
decision is in an audit log of its own, in the state folder, before it is answered. Where no file
names applications, one is let in with a token that is made at each start and ends with it.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from chartgate.adapters.control_plane_services import Services, Token
from chartgate.adapters.decision_doors import Doors, Opening, check_opening
from chartgate.adapters.decision_process import harden
from chartgate.adapters.decision_service import ServiceConfig, notify
from chartgate.adapters.decision_tls import Tls
from chartgate.adapters.decision_worker import authority, prepare, renew, tls_of, watch
from chartgate.adapters.keys import KeyStore, TokenKeys
from chartgate.adapters.log_service import LogService
from chartgate.adapters.node_plain import PlainNode, load_services, service_uid
from chartgate.adapters.service_accounts import digest_of, new_token
from chartgate.adapters.state import Instance, State
from chartgate.app.evaluation_events import CachedTokens
from chartgate.app.tokens import PatientTokens
from chartgate.cli import screen
from chartgate.demo.folder import locked, require_free
from chartgate.errors import ChartgateError, LogUnavailable, Misconfigured
from chartgate.model.service import EVERYTHING, Service

NODE: Final = "plain"
ORIGIN: Final = "chartgate.plain/log"
ANYBODY: Final = "app"
"""The one application where no file names any."""
_TOKEN_DAYS: Final = 400


@dataclass(frozen=True, slots=True)
class Files:
    """What decides."""

    policies: Path
    entities: Path | None
    services: Path | None


def serve(
    config: ServiceConfig, files: Files, *, on_ready: Callable[[str, Path | None], None]
) -> None:
    """Serve until told to end. ``on_ready`` is told the address and the token's file."""
    state = config.state
    if config.workers != 1:
        raise Misconfigured("a service of files alone has one worker")
    if config.port:
        require_free(config.host, config.port, option="--listen")
    harden()
    state.create()
    with locked(state), _applications(state, files.services) as (services, file):
        _claim(state, files)
        prepare(config)
        uvloop.run(_run(config, files, services, lambda url: on_ready(url, file)))


async def _run(
    config: ServiceConfig, files: Files, services: Services, ready: Callable[[str], None]
) -> None:
    state, ending = config.state, asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    tls = tls_of(config)
    opening = Opening(
        name=NODE,
        host=config.host,
        port=config.port,
        tls=tls,
        plain=config.plain,
        unix=Path(config.unix),
        base_url=config.base_url,
        metrics=state.sockets,
        access_log=config.access_log,
    )
    check_opening(opening)
    keys = TokenKeys(KeyStore(state.keys_dir), create=True)
    tokens = CachedTokens(PatientTokens(keys, NODE))
    async with (
        LogService(state, NODE, ORIGIN) as writer,
        PlainNode(
            NODE,
            ORIGIN,
            writer.log,
            tokens,
            policies=files.policies,
            entities=files.entities,
            services=services,
            durable=config.durability == "fsync",
        ) as node,
    ):
        doors = Doors(node, opening, pager_key=secrets.token_bytes(32))
        await doors.open()
        reloads: set[asyncio.Task[None]] = set()

        def reread() -> None:
            task = loop.create_task(_reread(node, files, tls, config))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reread)
        watching = loop.create_task(watch(writer.log, ending))
        url = f"{'http' if config.plain else 'https'}://{config.host}:{doors.port}"
        state.save_instance(msgspec.structs.replace(state.instance(), decisions=url))
        ready(url)
        notify("READY=1")
        await ending.wait()
        notify("STOPPING=1")
        await doors.close()
        watching.cancel()
        await asyncio.wait([watching])
        if not writer.log.is_linked:
            # whoever keeps this command running starts it again: the log is opened anew, if it can be
            raise LogUnavailable("the audit log takes no entries any more; see its disk")
        state.save_instance(msgspec.structs.replace(state.instance(), decisions=""))


async def _reread(node: PlainNode, files: Files, tls: Tls | None, config: ServiceConfig) -> None:
    try:
        if tls is not None:
            renew(config)
            tls.reload()
        services = None if files.services is None else load_services(files.services)
        await node.reload(services)
    except ChartgateError as exc:
        sys.stderr.write(f"chartgate: what is in force stays: {exc}\n")
    else:
        sys.stderr.write(f"chartgate: policies {node.rulings.hash[:12]} in force\n")


def _claim(state: State, files: Files) -> None:
    """Say what the folder is for; one with a control plane is never taken over."""
    if state.instance_file.exists() and state.instance().control:
        raise Misconfigured(
            f"{state.root} holds an instance with a control plane: name a folder of its own for a "
            "service of files alone with --state"
        )
    state.save_instance(
        Instance(
            node=NODE,
            origin=ORIGIN,
            source=NODE,
            data_map="",
            policies=str(files.policies.absolute()),
            control="",
            legacy="",
            asker=ANYBODY if files.services is None else "",
            embedded=False,
        )
    )


@contextmanager
def _applications(state: State, file: Path | None) -> Iterator[tuple[Services, Path | None]]:
    """Who may ask; and, where no file says so, the file with the one token."""
    if file is not None:
        yield load_services(file), None
        return
    number, text = new_token()
    uid = service_uid(ANYBODY)
    service = Service(uid, ANYBODY, active=True, scope=EVERYTHING)
    until = datetime.now(UTC) + timedelta(days=_TOKEN_DAYS)
    token = Token(number, uid, digest_of(text), until)
    path = state.token_file(ANYBODY)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as out:
        out.write(f"{text}\n")
    try:
        yield Services({uid: service}, {ANYBODY: service}, {token.digest: token}), path
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def show(url: str, unix: str, state: State, ca: Path | None, token: Path | None, line: str) -> None:
    """Where it answers and how to ask."""
    out = screen.console()
    out.print(f"The decision service answers at {url}", soft_wrap=True)
    out.print(f"and at {unix}.", soft_wrap=True)
    out.print(f"Its audit log is in {state.log_dir}; there is no control plane.", soft_wrap=True)
    if ca is not None:
        out.print(f"Callers trust {ca}.", soft_wrap=True)
    if token is not None:
        out.print(
            "No file names applications: whoever has the token may ask everything. It ends with this "
            "command; for more than a try, use --services."
        )
    screen.heading(out, "Ask it")
    screen.lines(out, [line])
    out.print()
    out.print("SIGHUP reads the files again. Ctrl-C answers what is under way and ends.")


__all__ = ["Files", "authority", "serve", "show"]
