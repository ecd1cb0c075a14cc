"""The decision service over a policy folder, as a test reaches it: by HTTPS, with a token."""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from chartgate.adapters.decision_doors import Doors, Opening
from chartgate.adapters.decision_memory import MemoryNode
from chartgate.adapters.decision_tls import CERTIFICATE, KEY, Tls, own_certificate
from chartgate.app.authzen_search import ActionSearch, Found, ResourceSearch, Sought
from chartgate.app.policy_bundle import Bundle, open_bundle
from chartgate.app.question import Question, Resource, Subject
from chartgate.app.rulings import Rulings
from chartgate.app.searches import Chunk, actions, resources, subjects
from chartgate.app.standing import PersonStandings
from chartgate.cedar.entities import Entity, entity_uid_from_json, record_from_json
from chartgate.model.service import ANY, Scope, Service

TOKEN = "conformance"

SCOPE = Scope(
    actions=frozenset((ANY,)),
    resource_types=frozenset((ANY,)),
    asserts=frozenset(("resource.status", "resource.ownerID", "action.soft")),
    may_search=True,
)
"""What the scenarios' own test harnesses are believed: nothing about a subject."""


@dataclass(frozen=True)
class Reached:
    """Where the service is, and a client that trusts it."""

    base: str
    client: httpx.Client
    authority: Path
    plain_port: int = 0
    """The same without TLS, for tests that write bytes of their own."""


@contextmanager
def decision_service(folder: Path, root: Path) -> Iterator[Reached]:
    """A service with the folder's policies and entities.json, on a port of its own."""
    root.mkdir(parents=True, exist_ok=True)
    authority = own_certificate(root / "tls", datetime.now(UTC))
    tls = Tls(root / "tls" / CERTIFICATE, root / "tls" / KEY)
    node = _node(folder)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def opened(**how: Any) -> Doors:
        doors = Doors(node, Opening(port=0, **how), pager_key=b"k" * 32)
        await doors.open()
        return doors

    doors = asyncio.run_coroutine_threadsafe(opened(tls=tls), loop).result(30)
    plain = asyncio.run_coroutine_threadsafe(opened(plain=True), loop).result(30)
    base = f"https://127.0.0.1:{doors.port}"
    try:
        trust = ssl.create_default_context(cafile=str(authority))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=base, verify=trust, headers=headers, timeout=30) as client:
            yield Reached(base, client, authority, plain.port)
    finally:
        asyncio.run_coroutine_threadsafe(doors.close(), loop).result(30)
        asyncio.run_coroutine_threadsafe(plain.close(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


def _node(folder: Path) -> MemoryNode:
    files = {p.name: p.read_text() for p in folder.iterdir() if p.suffix in (".cedar", ".toml")}
    files["schema.cedarschema"] = (folder / "schema.cedarschema").read_text()
    version = open_bundle(Bundle(files))
    stored = [_entity(form) for form in json.loads((folder / "entities.json").read_text())]
    rulings = Rulings(version, PersonStandings({}, version.roles), entities=stored)
    for _ in rulings.warming():
        pass

    def rule(question: Question, service: Service) -> Any:
        return rulings.rule(question, service.scope, None, _now())

    def search(sought: Sought, service: Service) -> Found:
        return _found(sought, _chunks(rulings, sought, service))

    return MemoryNode(
        rule, {TOKEN: Service("uid-test", "test", active=True, scope=SCOPE)}, search=search
    )


def _entity(form: dict[str, Any]) -> Entity:
    return Entity(entity_uid_from_json(form["uid"]), record_from_json(form["attrs"], {}))


def _chunks(rulings: Rulings, sought: Sought, service: Service) -> Iterator[Chunk]:
    query, after = sought.query, sought.page.after or ""
    if isinstance(query, ActionSearch):
        return actions(
            rulings,
            query.subject,
            query.resource,
            query.context,
            service.scope,
            None,
            _now(),
            after=after,
        )
    if isinstance(query, ResourceSearch):
        kind = Resource(query.resource.type, "", query.resource.properties)
        question = Question(query.subject, query.action, kind, query.context)
        return resources(rulings, question, service.scope, _now(), after=after)
    who = Subject(query.subject.type, "", query.subject.properties)
    question = Question(who, query.action, query.resource, query.context)
    return subjects(rulings, question, service.scope, None, _now(), after=after)


def _found(sought: Sought, chunks: Iterator[Chunk]) -> Found:
    names = [result.id for chunk in chunks for result in chunk.results]
    limit = sought.page.limit
    return Found(tuple(names[:limit]), more=len(names) > limit)


def _now() -> int:
    return time.time_ns() // 1_000_000
