"""What a node's parts share: its place on disk, the people as they are now, the turn of a version.

Rules kept: a process that decides keeps what it last obeyed in a folder of its own, and believes the
same logs as the node that it belongs to; people are read where the newest are; no decision is made
between the moment at which a version is given its place in the log and the moment at which it is in
force, so that every entry after it is by the new version.
"""

import asyncio
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from chartgate.adapters.audit_log import AuditLog
from chartgate.adapters.control_plane_snapshot import ControlPlaneSnapshot
from chartgate.adapters.source_catalog import read_source
from chartgate.adapters.state import Instance, State
from chartgate.app.session_views import Source
from chartgate.errors import ChartgateError
from chartgate.model.principal import Person

_logger = logging.getLogger(__name__)

NO_SOURCE: Final = Source({}, {})


@dataclass(frozen=True, slots=True)
class NodeFolder(State):
    """The instance's folder, with another place for what is in force."""

    in_force: Path

    @property
    def in_force_dir(self) -> Path:
        return self.in_force


def node_folder(state: State, name: str, below: Path | None = None) -> NodeFolder:
    """The folder of the node called ``name``: below the instance's, or elsewhere."""
    place = (below or state.root / "nodes") / re.sub(r"[^A-Za-z0-9._-]", "-", name)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return NodeFolder(state.root, place)


def source_reader(instance: Instance) -> "CatalogReader":
    """Reads the live catalog of the instance's source."""
    return CatalogReader(instance.legacy)


@dataclass(frozen=True, slots=True)
class CatalogReader:
    """The catalog of the database behind a connection string; of none when that is empty."""

    conninfo: str

    def __call__(self, schema: str) -> Source:
        """The tables of a schema as they are now."""
        if not self.conninfo:
            return NO_SOURCE
        with psycopg.connect(self.conninfo, connect_timeout=5) as connection:
            return read_source(connection, schema)


class PeopleNow(Mapping[str, Person]):
    """Everybody, by login name, as the newest snapshot has them."""

    __slots__ = ("get", "people")

    def __init__(self, people: Mapping[str, Person]) -> None:
        self.follow(people)

    def follow(self, people: Mapping[str, Person]) -> None:
        """These are the newest."""
        self.people = people
        self.get: Any = people.get  # one call less on the hot path

    def __getitem__(self, key: str) -> Person:
        return self.people[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.people)

    def __len__(self) -> int:
        return len(self.people)


class Turn:
    """Closed while a version changes; decisions wait."""

    def __init__(self) -> None:
        self.is_open = True
        self._opened = asyncio.Event()

    def close(self) -> None:
        """Let no decision begin."""
        self.is_open = False
        self._opened.clear()

    def open(self) -> None:
        """Go on."""
        self.is_open = True
        self._opened.set()

    async def wait(self) -> None:
        """Returns once it is open."""
        while not self.is_open:
            await self._opened.wait()


class VersionLog:
    """The log as the policy keeper sees it: ``policy_in_force`` takes its place at a turn.

    ``recorded=False``: for an application, which may not write a node's own events; its evaluations
    name the version all the same.
    """

    def __init__(self, log: AuditLog, turn: Turn, *, recorded: bool = True) -> None:
        self._log: Final = log
        self._turn: Final = turn
        self._recorded: Final = recorded

    @property
    def size(self) -> int:
        return self._log.size

    @property
    def checkpoint(self) -> str:
        return self._log.checkpoint

    @property
    def queued(self) -> int:
        return self._log.queued

    async def append(self, entries: Sequence[bytes], *, durable: bool = True) -> int:
        """As the log's own."""
        if not self._recorded:
            return 0
        return await self._log.append(entries, durable=durable)

    async def place(self, entries: Sequence[bytes]) -> int:
        """As the log's own; from here on nothing is decided until the version is in force."""
        if not self._recorded:
            return 0
        self._turn.close()
        try:
            return await self._log.place(entries)
        except BaseException:
            self._turn.open()
            raise

    async def settled(self, index: int) -> None:
        """As the log's own."""
        if self._recorded:
            await self._log.settled(index)

    def post(self, entries: Sequence[bytes]) -> None:
        """As the log's own; what cannot be recorded was said on standard error."""
        if not self._recorded:
            return
        try:
            self._log.post(entries)
        except ChartgateError as exc:
            _logger.warning("an alarm could not be recorded: %s", exc)

    async def head(self) -> tuple[int, str]:
        """As the log's own."""
        return await self._log.head()


def epoch_of(people: ControlPlaneSnapshot | None) -> int:
    """Of the control plane, as it is known; 0 without one."""
    return 0 if people is None else people.epoch
