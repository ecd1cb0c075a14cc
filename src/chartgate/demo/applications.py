"""The demo's applications, and the decision service that they ask.

Rules kept: an account is recorded before it counts, and the log says honestly that here the program
acted for the security officer (``bootstrap``); a token is made at each start, is in a file that only
the owner can read, and ends with the demo; what a person changed about an account stays.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import chartgate
from chartgate.adapters.control_plane import ControlPlane, open_control_plane
from chartgate.adapters.control_plane_services import scope_text
from chartgate.adapters.decision_service import DecisionService, ServiceConfig
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.service_accounts import digest_of, new_token
from chartgate.adapters.state import Instance, State
from chartgate.demo.folder import require_free
from chartgate.demo.policy_bootstrap import PROPOSER
from chartgate.errors import Misconfigured
from chartgate.model.event import Event, ServiceStep, encode
from chartgate.model.service import ANY, Scope

ADMINISTRATOR: Final = PROPOSER
"""The security officer: for her the program opens the accounts."""
ASKER: Final = "ehr"
"""In whose name ``chartgate ask`` asks."""
PORT: Final = 8443
_TOKEN_HOURS: Final = 24


@dataclass(frozen=True, slots=True)
class Application:
    """A service account of the demo."""

    name: str
    title: str
    scope: Scope


_VIEWS: Final = frozenset({"view", "view_summary", "view_masked"})
_SESSION: Final = frozenset(
    {"context.acr", "context.authenticated_at", "context.ip", "context.device", "context.session"}
)
APPLICATIONS: Final = (
    Application(
        "clinic",
        "Clinic application, as the examples have it",
        Scope(
            actions=_VIEWS | {"create", "update", "share"},
            resource_types=frozenset({"Record"}),
            categories=frozenset({ANY}),
            asserts=_SESSION,
        ),
    ),
    Application(
        ASKER,
        "Electronic health record",
        Scope(
            actions=_VIEWS | {"create", "update", "share", "export"},
            resource_types=frozenset({"Record"}),
            categories=frozenset({ANY}),
            asserts=_SESSION | {"resource.author", "resource.department", "resource.labels"},
            may_search=True,
        ),
    ),
    Application(
        "analytics",
        "Quality and operations analytics",
        Scope(
            actions=frozenset({"view_summary", "view_masked"}),
            resource_types=frozenset({"Record"}),
            categories=frozenset(
                {
                    "demographics", "scheduling", "clinical_summary", "labs", "imaging",
                    "medications", "vitals_nursing", "billing",
                }
            ),
        ),
    ),
)  # fmt: skip


def decision_port(host: str, gate: int) -> int:
    """Where to answer: the usual port if it is free, else any; any as well beside a gate on any."""
    if gate:
        with contextlib.suppress(Misconfigured):
            require_free(host, PORT)
            return PORT
    return 0


@asynccontextmanager
async def accounts(
    state: State, node: str, conninfo: str, log: LogWriter, uids: Mapping[str, str]
) -> AsyncIterator[None]:
    """The demo's applications have accounts, and tokens until the end."""
    person = uids.get(ADMINISTRATOR, "")
    if not person:  # the version in force knows no security officer: nobody may open accounts
        yield
        return
    book = _Book(conninfo)
    left = _left_over(state)
    until = datetime.now(UTC) + timedelta(hours=_TOKEN_HOURS)
    known = await asyncio.to_thread(book.known, left)
    tokens = {a.name: new_token() for a in APPLICATIONS if a.name not in known.full}
    fresh = {a.name: f"s_{secrets.token_hex(8)}" for a in APPLICATIONS if a.name not in known.uids}
    service = {**known.uids, **fresh}
    steps = [
        *(("token_revoked", uid, {"token": number}) for number, uid in known.live.items()),
        *(
            ("added", fresh[a.name], {"name": a.name, "scope": scope_text(a.scope)})
            for a in APPLICATIONS
            if a.name in fresh
        ),
        *(
            ("token_issued", service[name], {"token": number, "valid_until": until.isoformat()})
            for name, (number, _) in tokens.items()
        ),
    ]
    await log.append(list(_entries(node, person, steps)))
    await asyncio.to_thread(book.open, known.live, fresh, service, tokens, until)
    state.tokens_dir.mkdir(mode=0o700, exist_ok=True)
    for name, (_, text) in tokens.items():
        _write_private(state.token_file(name), f"{text}\n")
    try:
        yield
    finally:
        for name in tokens:
            state.token_file(name).unlink(missing_ok=True)
        ended = [
            ("token_revoked", service[name], {"token": number})
            for name, (number, _) in tokens.items()
        ]
        with contextlib.suppress(Exception):  # they end by themselves as well
            await log.append(list(_entries(node, person, ended)))
            await asyncio.to_thread(book.end, [number for number, _ in tokens.values()])


class Decisions:
    """The demo's decision service; it starts beside everything else. ``port`` 0: any.

    Its address is known as soon as it is wanted, and answers once ``ready``.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = ""
        self._starting: asyncio.Task[DecisionService] | None = None

    async def ready(self) -> None:
        """Returns once it answers; raises ``ServiceFailed`` if it does not start."""
        if self._starting is not None:
            await asyncio.shield(self._starting)

    @asynccontextmanager
    async def serving(self, state: State, instance: Instance) -> AsyncIterator[None]:
        """Runs while this lasts. The log's socket is there."""
        service = DecisionService(
            ServiceConfig(
                root=str(state.root),
                host=instance.host,
                port=self.port,
                unix=str(state.decision_socket),
                own_writer=False,
            )
        )
        starting = asyncio.get_running_loop().create_task(service.__aenter__(), name="decisions")
        self._starting = starting
        try:
            await asyncio.sleep(0)  # by then it has its port, or cannot have it
            if starting.done():
                await starting
            self.port = service.port
            self.url = f"https://{instance.host}:{self.port}"
            yield
        finally:
            if not starting.done():
                starting.cancel()
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await starting
            await service.stop()


@dataclass(frozen=True, slots=True)
class _Known:
    """What the control plane has already."""

    uids: Mapping[str, str]
    live: Mapping[str, str]
    """Tokens of a demo that did not end in order -> service."""
    full: frozenset[str]
    """Services to which somebody gave two tokens: there is no room for ours."""


class _Book:
    """The tables, each time by a connection of its own: all of this is in worker threads."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo

    def known(self, left: list[str]) -> _Known:
        with open_control_plane(self._conninfo) as control, control.change() as cursor:
            uids = cursor.execute("SELECT name, uid FROM service").fetchall()
            live = cursor.execute(
                "SELECT id, service_uid FROM service_token "
                "WHERE id = ANY(%s) AND revoked_at IS NULL",
                [left],
            ).fetchall()
            full = cursor.execute(
                "SELECT name FROM service JOIN service_token ON service_uid = uid "
                "WHERE revoked_at IS NULL AND valid_until > now() AND NOT id = ANY(%s) "
                "GROUP BY name HAVING count(*) > 1",
                [left],
            ).fetchall()
        names = {application.name for application in APPLICATIONS}
        return _Known(
            {name: uid for name, uid in uids if name in names},
            dict(live),
            frozenset(name for (name,) in full),
        )

    def open(
        self,
        over: Mapping[str, str],
        fresh: Mapping[str, str],
        service: Mapping[str, str],
        tokens: Mapping[str, tuple[str, str]],
        until: datetime,
    ) -> None:
        with open_control_plane(self._conninfo) as control:
            _revoke(control, list(over))
            with control.change() as cursor:
                for application in APPLICATIONS:
                    if application.name in fresh:
                        cursor.execute(
                            "INSERT INTO service (uid, name, title, scope) VALUES (%s, %s, %s, %s)",
                            [
                                fresh[application.name],
                                application.name,
                                application.title,
                                scope_text(application.scope),
                            ],
                        )
                for name, (number, text) in tokens.items():
                    cursor.execute(
                        "INSERT INTO service_token (id, service_uid, digest, valid_until) "
                        "VALUES (%s, %s, %s, %s)",
                        [number, service[name], digest_of(text), until],
                    )

    def end(self, numbers: list[str]) -> None:
        with open_control_plane(self._conninfo) as control:
            _revoke(control, numbers)


def _revoke(control: ControlPlane, numbers: list[str]) -> None:
    with control.change() as cursor:
        cursor.execute(
            "UPDATE service_token SET revoked_at = now() WHERE id = ANY(%s) AND revoked_at IS NULL",
            [numbers],
        )


def _left_over(state: State) -> list[str]:
    """Numbers of tokens whose files a demo that was killed left behind."""
    found = []
    for application in APPLICATIONS:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = state.token_file(application.name).read_text("ascii")
            found += text.split("_")[1:2]
    return found


def _entries(
    node: str, person: str, steps: list[tuple[str, str, dict[str, str]]]
) -> Iterator[bytes]:
    software = f"chartgate {chartgate.__version__}"
    for step, service, detail in steps:
        event: Event = ServiceStep(
            at=datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            node=node,
            person=person,
            service=service,
            step=step,
            detail={**detail, "bootstrap": software},
        )
        yield encode(event)


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
