"""Other engines, made to answer the questions of ``policy_family``; each as fast as it can be fed.

Everything an engine can take in advance is given in advance and not timed: parsed policies, parsed
entities, serialised input. Each ``prepare`` gives a list of calls, one for each request, that answer
whether it is allowed, and with which rules where the engine tells; or None where it is not installed.
"""

import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import policy_family as family
from policy_family import Request, Rule

from chartgate.cedar.entities import Entity
from chartgate.cedar.values import CedarSet
from chartgate.model.principal import EntityUid

Call = Callable[[], tuple[bool, frozenset[str] | None]]


def _json(value: Any) -> Any:
    if isinstance(value, EntityUid):
        return {"__entity": value._asdict()}
    return [_json(member) for member in value] if isinstance(value, CedarSet) else value


def _form(entity: Entity) -> dict[str, Any]:
    return {
        "uid": entity.uid._asdict(),
        "attrs": {name: _json(value) for name, value in entity.attrs.items()},
        "parents": [parent._asdict() for parent in entity.parents],
    }


def cedarpy(rules: list[Rule], requests: list[Request]) -> list[Call] | None:
    """cedarpy with policies and entities as parsed handles; the entities are those it needs."""
    import cedarpy as engine

    policies = engine.PolicySet.from_str("\n".join(family.cedar(rule) for rule in rules))
    names = {f"policy{number}": rule.id for number, rule in enumerate(rules)}
    small = [_form(entity) for entity in family.world(0) if entity.uid.type != "User"]

    def call(request: Request) -> Call:
        who = family.person(int(request.person.id[1:]))
        held = json.dumps([*small, _form(who), _form(request.record)])
        entities = engine.Entities.from_json_str(held)
        asked = {
            "principal": request.person._asdict(),
            "action": request.action._asdict(),
            "resource": request.record.uid._asdict(),
            "context": {name: _json(value) for name, value in request.context.items()},
        }

        def ask() -> tuple[bool, frozenset[str]]:
            answer = engine.is_authorized(asked, policies, entities)
            return answer.allowed, frozenset(names[i] for i in answer.diagnostics.reasons)

        return ask

    return [call(request) for request in requests]


def regorus(rules: list[Rule], requests: list[Request]) -> list[Call] | None:
    """regorus, Microsoft's interpreter of Rego, by opa-eval; the input is JSON text."""
    try:
        from opa_eval import OpaEval
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "authz.rego"
        path.write_text(family.rego_module(rules))
        engine = OpaEval(str(path), query="data.authz.answer")

    def call(request: Request) -> Call:
        asked = json.dumps(
            {
                "user": request.person.id,
                "roles": request.roles,
                "departments": request.departments,
                "purposes": request.purposes,
                "action": request.action.id,
                "resource": request.attributes,
            }
        )

        def ask() -> tuple[bool, frozenset[str]]:
            found = engine.evaluate_parsed(asked)
            return found["allow"], frozenset(found["forbid"] or found["permit"])

        return ask

    return [call(request) for request in requests]


class _Held:
    """Attributes, as pycasbin reads them."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


_CASBIN = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = rule, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = eval(p.rule)
"""


def pycasbin(rules: list[Rule], requests: list[Request]) -> list[Call] | None:
    """pycasbin, one ``eval`` of each rule."""
    try:
        import casbin
    except ImportError:
        return None
    model = casbin.Model()
    model.load_model_from_text(_CASBIN)
    engine = casbin.Enforcer(model)
    engine.add_function("has", lambda values, value: value in values)
    for rule in rules:
        engine.add_policy(family.casbin(rule), "allow" if rule.effect == "permit" else "deny")

    def call(request: Request) -> Call:
        subject = _Held(
            name=request.person.id, roles=request.roles, purposes=request.purposes,
            departments=request.departments,
        )  # fmt: skip
        record = _Held(**{"author": "", **request.attributes})
        return lambda: (engine.enforce(subject, record, request.action.id), None)

    return [call(request) for request in requests]


def cerbos_binary(given: str | None) -> str | None:
    """Where Cerbos is; ``npm install @cerbos/cerbos-linux-x64`` puts it into ``node_modules``."""
    name = "cerbos-linux-x64"
    local = Path("node_modules/@cerbos") / name / name
    return given or shutil.which("cerbos") or (str(local.resolve()) if local.exists() else None)


@contextmanager
def cerbos(
    binary: str | None, rules: list[Rule], requests: list[Request]
) -> Iterator[list[Call] | None]:
    """A Cerbos server on this machine, over HTTP on one connection that stays open."""
    if binary is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        policy = {
            "apiVersion": "api.cerbos.dev/v1",
            "resourcePolicy": {
                "version": "default",
                "resource": "record",
                "rules": [family.cerbos(rule) for rule in rules],
            },
        }
        (Path(folder) / "record.json").write_text(json.dumps(policy))
        settings = {
            "storage.driver": "disk",
            "storage.disk.directory": folder,
            "server.httpListenAddr": "127.0.0.1:39592",
            "server.grpcListenAddr": "127.0.0.1:39593",
            "telemetry.disabled": "true",
        }
        arguments = [f"--set={name}={value}" for name, value in settings.items()]
        server = subprocess.Popen(
            [binary, "server", "--log-level=error", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            connection = http.client.HTTPConnection("127.0.0.1", 39592, timeout=30)
            if not _answers(connection, server):
                print("cerbos did not start", file=sys.stderr)
                yield None
                return
            yield [_cerbos_call(connection, request) for request in requests]
        finally:
            server.terminate()
            server.wait(30)


def _answers(connection: http.client.HTTPConnection, server: "subprocess.Popen[bytes]") -> bool:
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        try:
            connection.request("GET", "/_cerbos/health")
            if connection.getresponse().read() and server.poll() is None:
                return True
        except OSError:
            connection.close()
            time.sleep(0.1)
    return False


def _cerbos_call(connection: http.client.HTTPConnection, request: Request) -> Call:
    action = request.action.id
    body = json.dumps(
        {
            "principal": {
                "id": request.person.id,
                "roles": request.roles,
                "attr": {"purposes": request.purposes, "departments": request.departments},
            },
            "resources": [
                {
                    "actions": [action],
                    "resource": {"kind": "record", "id": "asked", "attr": request.attributes},
                }
            ],
        }
    )
    headers: Mapping[str, str] = {"Content-Type": "application/json"}

    def ask() -> tuple[bool, None]:
        connection.request("POST", "/api/check/resources", body, headers)
        answer = json.loads(connection.getresponse().read())
        return answer["results"][0]["actions"][action] == "EFFECT_ALLOW", None

    return ask
