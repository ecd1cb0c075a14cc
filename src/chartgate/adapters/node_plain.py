"""A node without a control plane: policies from a folder, entities and services from files.

The rules kept are a node's: decide, record, act; strictly validated policies alone; callers are
authenticated and limited by scope. There are no people but the entities of the file, no grants and
no life cycle of versions: what the folder says is in force from the start to the end, or until
``reload``, and who may write the folder decides. For trying out, for tests of conformance, and for
applications whose policies are deployed with them.

Services come from a TOML file, or from a ``Services`` value::

    [services.todo]
    actions = ["*"]              # and resource_types, categories, asserts, may_search
    tokens = [{ id = "01234567", sha256 = "…", valid_until = 2027-01-01T00:00:00Z }]
    certificates = ["<SHA-256 in hex>"]
    subjects = ["<subject of a trusted issuer>"]
"""

import asyncio
import hashlib
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from chartgate.adapters.audit_log import AuditLog
from chartgate.adapters.control_plane_services import Services, Token
from chartgate.adapters.node_desk import AnswerDesk
from chartgate.adapters.node_rulings import Ready, make_ready
from chartgate.adapters.node_state import Turn
from chartgate.adapters.policy_files import load_policy_version
from chartgate.app.authzen_search import Sought
from chartgate.app.evaluation_events import Tokens
from chartgate.app.node_asked import Answered, Asked, Caller, Readiness, Searched
from chartgate.app.rulings import Rulings
from chartgate.cedar.entities import entities_from_json, entity_uid_from_json
from chartgate.errors import ChartgateError, Misconfigured
from chartgate.model.event import CallerRefused, NodeStarted, PolicyInForce, encode
from chartgate.model.service import Scope, Service

_READY: Final = Readiness()
_NOT_YET: Final = Readiness(("the node is not started",))
_NO_LOG: Final = Readiness(("the audit log's writer is not reached",), is_log_lost=True)


class _TokenForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    sha256: str
    valid_until: datetime


class _ServiceForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    active: bool = True
    actions: frozenset[str] = frozenset()
    resource_types: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    asserts: frozenset[str] = frozenset()
    may_search: bool = False
    tokens: tuple[_TokenForm, ...] = ()
    certificates: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    services: dict[str, _ServiceForm] = {}


def load_services(path: Path) -> Services:
    """The services of a TOML file; raises ``Misconfigured``."""
    try:
        form = tomllib.loads(path.read_text(encoding="utf-8"))
        found = msgspec.convert(form, _File)
        return _services(found)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise Misconfigured(f"the services file {path} cannot be read") from exc
    except (msgspec.ValidationError, ValueError) as exc:
        raise Misconfigured(f"the services file {path}: {exc}") from None


def _services(file: _File) -> Services:
    services, tokens = {}, {}
    fingerprints: dict[str, str] = {}
    subjects: dict[str, str] = {}
    for name, form in file.services.items():
        uid = service_uid(name)
        scope = Scope(
            form.actions, form.resource_types, form.categories, form.asserts, form.may_search
        )
        services[uid] = Service(uid, name, form.active, scope)
        for token in form.tokens:
            digest = bytes.fromhex(token.sha256)
            if len(digest) != hashlib.sha256().digest_size or token.valid_until.tzinfo is None:
                raise ValueError("a token is its SHA-256 in hex, and a time with an offset")
            tokens[digest] = Token(token.id, uid, digest, token.valid_until)
        fingerprints.update((one.lower(), uid) for one in form.certificates)
        subjects.update((one, uid) for one in form.subjects)
    by_name = {one.name: one for one in services.values()}
    return Services(services, by_name, tokens, fingerprints, subjects)


def service_uid(name: str) -> str:
    """What the log calls a service of a file: the same as long as it has its name."""
    return f"s_{hashlib.sha256(name.encode()).hexdigest()[:16]}"


class PlainNode:
    """As ``Node``, by files. Use as an async context manager; ``log`` is whoever made it's."""

    def __init__(
        self,
        name: str,
        origin: str,
        log: AuditLog,
        tokens: Tokens,
        *,
        policies: Path,
        entities: Path | None = None,
        services: Services,
        durable: bool = True,
        own_events: bool = True,
    ) -> None:
        self.name: Final = name
        self.origin: Final = origin
        self._log: Final = log
        self._policies: Final = policies
        self._entities: Final = entities
        self._services = services
        self._own_events: Final = own_events
        self._turn: Final = Turn()
        self._ready: Ready | None = None
        self.epoch = 0
        """How often it was reloaded: there is no control plane."""
        self._desk: Final = AnswerDesk(
            name,
            origin,
            log,
            tokens,
            self._turn,
            ready=lambda: self.ready,
            facts=lambda: None,
            epoch=lambda: self.epoch,
            readiness=self.is_ready,
            is_durable=durable,
        )

    async def __aenter__(self) -> Self:
        self._ready = await asyncio.to_thread(self._read)
        if self._own_events:
            event = NodeStarted(
                at=_stamp(),
                node=self.name,
                policy_set=self.rulings.hash,
                data_map="",
                software="chartgate",
                detail={"policies": "folder"},
            )
            await self._log.append((encode(event),))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ready = None

    async def reload(self, services: Services | None = None) -> None:
        """Read the folder again. Raises ``Misconfigured``; then what was in force stays."""
        before, fresh = self.ready, await asyncio.to_thread(self._read)
        if fresh.version.hash != before.version.hash and self._own_events:
            event = PolicyInForce(
                at=_stamp(),
                node=self.name,
                subject="policies",
                content=fresh.version.hash,
                generation=self.epoch + 1,
                activation=0,
                log="",
                policy_set=fresh.rulings.hash,
                data_map="",
                previous=before.version.hash,
            )
            self._turn.close()
            try:
                index = await self._log.place((encode(event),))
                self._ready = fresh
            finally:
                self._turn.open()
            await self._log.settled(index)
        self._ready = fresh
        self._services = self._services if services is None else services
        self.epoch += 1

    async def answer(self, asked: Asked, caller: Caller) -> Answered:
        """Decide, record, answer. Raises ``NodeNotReady`` or ``LogUnavailable``: nothing is told."""
        return await self._desk.answer(asked, caller)

    async def search(
        self, sought: Sought, caller: Caller, *, request: str, trace: str = ""
    ) -> Searched:
        """One page of a search, exact, recorded. Raises ``SearchRefused`` as well."""
        return await self._desk.search(sought, caller, request=request, trace=trace)

    @property
    def ready(self) -> Ready:
        """What decides now."""
        assert self._ready is not None, "the node is not started"
        return self._ready

    @property
    def rulings(self) -> Rulings:
        """The ``Rulings`` in force."""
        return self.ready.rulings

    def is_ready(self) -> Readiness:
        """Whether it may decide now."""
        if self._ready is None:
            return _NOT_YET
        return _READY if getattr(self._log, "is_linked", True) else _NO_LOG

    def measures(self) -> dict[str, float]:
        """What a watcher wants to see rising before anything stops."""
        return {"log_queue": float(self._log.queued)}

    def service_of_token(self, token: str) -> Service:
        """Who sends this token; raises ``UnknownCaller``."""
        return self._services.of_token(token, at=datetime.now(UTC))

    def service_of_certificate(self, fingerprint: str, subject: str = "") -> Service:
        """Whose certificate it is; raises ``UnknownCaller``."""
        return self._services.of_certificate(fingerprint, subject)

    def service_named(self, name: str) -> Service:
        """The service of this name; raises ``UnknownCaller``."""
        return self._services.named(name)

    async def refuse_caller(
        self, reason: str, *, channel: str, client: str = "", service: str = ""
    ) -> None:
        """Record a caller that could not be authenticated, or asked beyond its scope."""
        event = CallerRefused(
            at=_stamp(),
            node=self.name,
            service=service,
            channel=channel,
            client=client,
            reason=reason[:200],
        )
        await self._log.append((encode(event),), durable=False)

    def _read(self) -> Ready:
        version = load_policy_version(self._policies)
        forms: Any = []
        if self._entities is not None:
            try:
                forms = msgspec.json.decode(self._entities.read_bytes())
            except (OSError, msgspec.MsgspecError) as exc:
                raise Misconfigured(f"the entities file {self._entities} cannot be read") from exc
        try:
            held = entities_from_json(forms, version.schema)
        except ChartgateError as exc:
            raise Misconfigured(f"the entities file {self._entities}: {exc}") from exc
        stored = [held.get(entity_uid_from_json(form["uid"])) for form in forms]
        return make_ready(version, None, {}, [one for one in stored if one is not None])


def _stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
