"""What an embedded gate decides by and records in: the node in a state folder of this machine.

Rules kept: the application's process decides by what its node has in force, people and policies both,
and releases nothing when it has not known either for 15 seconds; its events go to the node's one
writer, which is on disk before a row is handed out. The process runs as the node's own user: it
reads the token keys, which nobody else may.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict

import chartgate
from chartgate.adapters.control_plane_feed import STALE_SECONDS, ControlPlaneFeed
from chartgate.adapters.keys import KeyStore, TokenKeys
from chartgate.adapters.log_remote import RemoteLog
from chartgate.adapters.policy_in_force import Loaded, load_for
from chartgate.adapters.source_catalog import read_source
from chartgate.adapters.state import Instance, State, default_root
from chartgate.adapters.upstream import UpstreamAddress
from chartgate.app.in_force import InForce
from chartgate.app.session_views import Source
from chartgate.app.tokens import PatientTokens
from chartgate.errors import ChartgateError, Misconfigured
from chartgate.model.event import NodeStarted, NodeStopped, encode
from chartgate.sdk.sqlalchemy_door import Behind
from chartgate.sdk.sqlalchemy_gate import Opener

_LOOK_SECONDS: Final = 1.0


def at_state(root: Path | str | None = None, *, name: str = "app") -> Opener:
    """Decide and record as the node in this state folder does (``CHARTGATE_STATE``, else the demo's).

    ``name`` is the application's, in the log: its events are those of the node ``<node>/app-<name>``.
    """
    state = State(default_root() if root is None else Path(root))

    def opened() -> AbstractAsyncContextManager[Behind]:
        return _opened(state, name)

    return opened


@asynccontextmanager
async def _opened(state: State, name: str) -> AsyncIterator[Behind]:
    instance = state.instance()
    node = f"{instance.node}/app-{name}"
    seen = _seen(state)
    loaded, source = await asyncio.to_thread(_load, state, instance)
    in_force = InForce(loaded.point, source)
    async with (
        RemoteLog(state.log_socket, kind="gateway") as log,
        ControlPlaneFeed(instance.control) as feed,
        _Follower(state, instance, in_force, seen) as follower,
    ):
        started = NodeStarted(
            at=_stamp(),
            node=node,
            policy_set=loaded.point.policies.hash,
            data_map=loaded.point.data_map.hash,
            software=f"chartgate {chartgate.__version__}",
            detail={"pid": os.getpid()},
        )
        await log.append((encode(started),))
        try:
            yield Behind(
                node=node,
                in_force=in_force,
                upstream=_address(instance),
                people=_Known(feed, follower),
                tokens=PatientTokens(
                    TokenKeys(KeyStore(state.keys_dir), create=True), instance.source
                ),
                log=log,
                service=node,
            )
        finally:
            stopped = NodeStopped(at=_stamp(), node=node, reason="the application ended")
            with contextlib.suppress(ChartgateError):
                await log.append((encode(stopped),))


def _load(state: State, instance: Instance) -> tuple[Loaded, Source]:
    loaded = load_for(state, instance)
    with psycopg.connect(instance.legacy) as connection:
        return loaded, read_source(connection, loaded.data_map.schema)


def _address(instance: Instance) -> UpstreamAddress:
    parts = conninfo_to_dict(instance.legacy)
    host = str(parts.get("host") or "")
    if not host.startswith("/"):
        raise Misconfigured("the source is reached by a Unix socket: its host must be a folder")
    password = parts.get("password")
    return UpstreamAddress(
        Path(host) / f".s.PGSQL.{parts.get('port') or 5432}",
        str(parts.get("dbname") or instance.database),
        str(parts.get("user") or ""),
        None if password is None else str(password),
    )


class _Known:
    """People, believed for as long as the policies are known too."""

    def __init__(self, feed: ControlPlaneFeed, follower: "_Follower") -> None:
        self._feed: Final = feed
        self._follower: Final = follower

    @property
    def snapshot(self) -> Any:
        return self._feed.snapshot

    def is_fresh(self, now_monotonic: float) -> bool:
        return self._feed.is_fresh(now_monotonic) and self._follower.is_fresh(now_monotonic)


class _Follower:
    """Puts in force here what the node has put in force, within a second or so."""

    def __init__(self, state: State, instance: Instance, in_force: InForce, seen: object) -> None:
        self._state: Final = state
        self._instance: Final = instance
        self._in_force: Final = in_force
        self._seen = seen
        self._known_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def is_fresh(self, now_monotonic: float) -> bool:
        """Whether it was known within the last 15 seconds what is in force."""
        return now_monotonic - self._known_at < STALE_SECONDS

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow(), name="embedded gate: policies")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            asked_at = time.monotonic()
            try:
                seen = await asyncio.to_thread(_seen, self._state)
                if seen != self._seen:
                    loaded, source = await asyncio.to_thread(_load, self._state, self._instance)
                    self._in_force.replace(loaded.point, source)
                    self._seen = seen
            except (ChartgateError, OSError, psycopg.Error):
                continue  # half of a change, or worse: after a while nothing is fresh any more
            self._known_at = asked_at


def _seen(state: State) -> tuple[tuple[str, int, int], ...]:
    """What the files of what is in force look like: replaced as wholes, they never look alike."""
    found = (entry for entry in state.in_force_dir.glob("*.json"))
    return tuple(sorted((e.name, e.stat().st_ino, e.stat().st_mtime_ns) for e in found))


def _stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


__all__ = ["at_state"]
