"""The demo as a whole: a hospital that knows nothing of Chartgate, and the gate in front of it.

Everything lives in one state folder. Passwords are made at each start, travel by a libpq passfile
that only the owner can read, and end with the demo.
"""

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import psycopg

import chartgate
from chartgate.adapters.control_plane import open_control_plane
from chartgate.adapters.control_plane_feed import ControlPlaneFeed
from chartgate.adapters.decision_apps import ApplicationAccounts
from chartgate.adapters.embedded_postgres import PORT as SOCKET_PORT
from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.adapters.gateway import IDLE_SECONDS, Gateway, GatewayConfig
from chartgate.adapters.keys import KeyStore, TokenKeys
from chartgate.adapters.log_service import keep_checkpoint, open_same_log
from chartgate.adapters.log_socket import AppDoor, serve_log_socket
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.policy_files import read_bundle, read_map_bundle
from chartgate.adapters.policy_in_force import Loaded, held, load, trusted_keys
from chartgate.adapters.policy_keeper import PolicyKeeper
from chartgate.adapters.signing import load_or_create_signer
from chartgate.adapters.source_catalog import read_source
from chartgate.adapters.state import Instance, State
from chartgate.adapters.upstream import UpstreamAddress
from chartgate.app.entitlement import DecisionPoint
from chartgate.app.evaluation_events import CachedTokens
from chartgate.app.in_force import InForce
from chartgate.app.policy_bundle import Bundle
from chartgate.app.session_views import Source
from chartgate.app.tokens import PatientTokens
from chartgate.demo import legacy, synthea
from chartgate.demo.applications import ASKER, Decisions, accounts
from chartgate.demo.folder import (
    locked,
    one_line_for_the_disk,
    refuse_foreign,
    require_free,
    unheard,
    uninterrupted,
)
from chartgate.demo.generator import generate
from chartgate.demo.logins import people_of
from chartgate.demo.policy_bootstrap import bootstrap
from chartgate.demo.shipped import shipped
from chartgate.errors import Misconfigured
from chartgate.govern.policy_version import MAP, POLICIES
from chartgate.model.event import Event, NodeStarted, NodeStopped, Recovered, encode

NODE: Final = "demo"
SEED: Final = 20260101
DATABASE: Final = "hospital"
PORT: Final = 6432
AUDITOR: Final = "pofficer"
"""Who asks the audit log when nobody else is named."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that runs beneath the gate, and what the gate is made from."""

    state: State
    instance: Instance
    loaded: Loaded
    shipped: Mapping[str, Bundle]
    """The policies and the data map that came with the software, by subject."""
    source: Source
    catalog: str
    """libpq connection string by which the source's catalog is read."""
    upstream: UpstreamAddress
    control: str
    title: str

    @property
    def point(self) -> DecisionPoint:
        """What decides at the start."""
        return self.loaded.point


@contextmanager
def prepared(
    root: Path, *, data: Path | None, port: int, host: str, progress: Progress
) -> Iterator[Prepared]:
    """Lock the state folder, start both databases, load what is missing; undo it all at the end.

    Raises ``ChartgateError`` with one clear line for whatever stands in the way.
    """
    state = State(root)
    with one_line_for_the_disk(root), contextlib.ExitStack() as stack:
        refuse_foreign(state)
        state.create()
        stack.enter_context(locked(state))
        require_free(host, port)
        progress("starting the hospital's database and the control plane")
        with uninterrupted():
            hospital = stack.enter_context(
                EmbeddedPostgres(state.legacy_pg, roles=(legacy.SERVICE,))
            )
            control = stack.enter_context(EmbeddedPostgres(state.control_pg))
        name = _load(state, hospital, data, progress)
        data_map = _install_map(state, name, data)
        progress("loading policies and data map")
        ours = {
            POLICIES: read_bundle(shipped("policies")),
            f"{MAP}{name}": read_map_bundle(data_map),
        }
        loaded = _in_force(state, ours)
        catalog = hospital.conninfo(DATABASE, hospital.superuser)
        source = _read_source(catalog, loaded.data_map.schema)
        conninfo = control.conninfo("postgres", control.superuser)
        instance = Instance(
            node=NODE,
            origin="chartgate.demo/log",
            source=name,
            data_map=str(data_map),
            policies=str(shipped("policies")),
            control=conninfo,
            legacy=hospital.conninfo(DATABASE, legacy.SERVICE),
            host=host,
            port=port,
            database=DATABASE,
            auditor=AUDITOR,
        )
        stack.enter_context(people_of(state, conninfo, loaded.version.roles, instance))
        state.save_instance(instance)
        yield Prepared(
            state,
            instance,
            loaded,
            ours,
            source,
            catalog,
            UpstreamAddress(
                hospital.socket_dir / f".s.PGSQL.{SOCKET_PORT}", DATABASE, legacy.SERVICE
            ),
            conninfo,
            loaded.data_map.title,
        )


@asynccontextmanager
async def serving(
    ready: Prepared, *, idle_seconds: float = IDLE_SECONDS, decisions: Decisions | None = None
) -> AsyncIterator[int]:
    """Run the gate; answers the port it listens on. The log is closed last.

    ``decisions``: the decision service, which then runs beside; it may still be starting.
    """
    state, node = ready.state, ready.instance.node
    signer = load_or_create_signer(state.log_key, ready.instance.origin)
    dropped: list[tuple[int, str]] = []
    files = open_same_log(state, signer, lambda size, digest: dropped.append((size, digest)))
    log = LogWriter(files)
    try:
        started = NodeStarted(
            at=_stamp(),
            node=node,
            policy_set=ready.point.policies.hash,
            data_map=ready.point.data_map.hash,
            software=f"chartgate {chartgate.__version__}",
        )
        recovered: list[Event] = [
            Recovered(
                at=_stamp(), node=node, dropped_bytes=size, dropped_sha256=digest, size=files.size
            )
            for size, digest in dropped
        ]
        await log.append(tuple(encode(event) for event in (*recovered, started)))
        tokens = PatientTokens(
            TokenKeys(KeyStore(state.keys_dir), create=True), ready.instance.source
        )
        uids = await asyncio.to_thread(_uids, ready.control)
        await bootstrap(state, node, ready.control, log, ready.shipped, uids)
        in_force = InForce(ready.point, ready.source)
        keeper = PolicyKeeper(
            state,
            node,
            ready.control,
            log,
            ready.loaded,
            in_force,
            partial(_read_source, ready.catalog),
        )
        async with (
            await serve_log_socket(
                state.log_socket,
                log,
                node=node,
                origin=log.origin,
                door=AppDoor(ApplicationAccounts(ready.control).verify, CachedTokens(tokens)),
            ),
            _deciding(ready, log, uids, decisions),
            keeper,
            ControlPlaneFeed(
                ready.control, on_change=keeper.wake, on_forged=keeper.forged_notice
            ) as people,
        ):
            keeper.wake()  # what came between the first look and the link
            gateway = Gateway(
                GatewayConfig(
                    node=node,
                    database=DATABASE,
                    host=ready.instance.host,
                    port=ready.instance.port,
                    idle_seconds=idle_seconds,
                ),
                in_force,
                ready.upstream,
                people,
                tokens,
                log,
            )
            port = await _listening(gateway, ready.instance)
            instance = msgspec.structs.replace(
                ready.instance,
                port=port,
                decisions="" if decisions is None else decisions.url,
                asker=ASKER,
            )
            state.save_instance(instance)
            ending = asyncio.Event()
            checkpoints = asyncio.get_running_loop().create_task(
                keep_checkpoint(state, log, files, ending)
            )
            try:
                yield port
            finally:
                ending.set()
                state.save_instance(msgspec.structs.replace(instance, decisions=""))
                await gateway.close()
                await keeper.stop()
                await checkpoints  # what it is writing must not come after what is written last
        await log.append((encode(NodeStopped(at=_stamp(), node=node, reason="asked to stop")),))
    finally:
        await log.close()
        state.save_checkpoint(files.checkpoint)


@asynccontextmanager
async def _deciding(
    ready: Prepared, log: LogWriter, uids: Mapping[str, str], decisions: Decisions | None
) -> AsyncIterator[None]:
    state, instance = ready.state, ready.instance
    if decisions is None:
        yield
        return
    async with (
        accounts(state, instance.node, ready.control, log, uids),
        decisions.serving(state, instance),
    ):
        yield


def _in_force(state: State, ours: Mapping[str, Bundle]) -> Loaded:
    """What was in force here last; instead of what shipped then, what ships now."""
    keys = trusted_keys(state)
    last = {s: found for s in ours if (found := held(state, s, keys)) is not None}
    chosen = {
        subject: last[subject].order.bundle
        if subject in last and not last[subject].is_shipped
        else bundle
        for subject, bundle in ours.items()
    }
    policies, data_map = (chosen[subject] for subject in ours)
    return load(policies, data_map, last)


def _read_source(conninfo: str, schema: str) -> Source:
    with psycopg.connect(conninfo) as connection:
        return read_source(connection, schema)


def _uids(conninfo: str) -> dict[str, str]:
    with open_control_plane(conninfo) as control:
        return {name: person.uid for name, person in control.snapshot().persons.items()}


async def _listening(gateway: Gateway, instance: Instance) -> int:
    try:
        return await gateway.start()
    except OSError as exc:
        raise unheard(instance.host, instance.port, exc) from exc


def _load(state: State, server: EmbeddedPostgres, data: Path | None, progress: Progress) -> str:
    """Load the hospital unless it is there; a different one asks for ``--reset``."""
    wanted = "hospital" if data is None else synthea.detect_layout(data).name
    marker = state.root / "data"
    origin = "generated" if data is None else str(data.resolve())
    loaded = legacy.is_loaded(server)
    if loaded is not None:
        before = marker.read_text("utf-8") if marker.exists() else ""
        if loaded != wanted or before != origin:
            raise Misconfigured(
                f"{state.root} holds other data ({before or loaded}); start over with --reset"
            )
        return wanted
    rng = random.Random(SEED)  # noqa: S311  (a demo's data, the same every time)
    today = date.today()  # noqa: DTZ011  (the hospital's own day)
    progress("loading the hospital" if data is None else f"loading {data.name}")
    source = (
        legacy.hospital_source(generate(rng, today))
        if data is None
        else synthea.source(data, rng, today)
    )
    legacy.load(server, source)
    marker.write_text(origin, "utf-8")
    return source.name


def _install_map(state: State, name: str, data: Path | None) -> Path:
    """The map in force, in the state folder; Synthea's reviewed codes are drafted there."""
    folder = state.root / "maps"
    if folder.exists():
        shutil.rmtree(folder)
    if data is not None:
        return synthea.prepare_map(data, shipped("maps"), state.root)
    shutil.copytree(shipped("maps"), folder)
    return folder / f"{name}.toml"


def _stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
