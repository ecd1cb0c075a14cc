"""Policy sets that others published, restated: a world, requests, and what was published of them.

A folder holds ``policies.cedar``, ``schema.cedarschema`` and ``cases.toml``: the entities, the
links of templates, and the cases. In it ``@Type::id`` is an entity, and a string is read by the
type that the schema gives its place.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cedarpy

from chartgate.cedar.authorize import Answer, authorize
from chartgate.cedar.entities import Entities, entities_from_json, record_from_json
from chartgate.cedar.evaluate import Env
from chartgate.cedar.parse import parse_policies, parse_schema
from chartgate.cedar.templates import Link, with_links
from chartgate.model.principal import EntityUid
from chartgate.targets.compiled import compile_policies
from chartgate.targets.entity_store import EntityStore

CASES = Path(__file__).resolve().parents[1] / "cases"


@dataclass(frozen=True)
class Case:
    """A request, and the verdict that was published."""

    name: str
    who: str
    does: str
    what: str
    verdict: str
    context: Mapping[str, Any]
    entities: Mapping[str, Mapping[str, Any]]
    """Entities that only this case has."""


class Published:
    """One policy set with its cases."""

    def __init__(self, folder: str) -> None:
        place = CASES / folder
        self.text = (place / "policies.cedar").read_text()
        self.schema_text = (place / "schema.cedarschema").read_text()
        document = tomllib.loads((place / "cases.toml").read_text())
        self.world: dict[str, dict[str, Any]] = document.get("world", {})
        self.links = tuple(
            Link(one["template"], one["id"], {f"?{k}": uid(v) for k, v in one["slots"].items()})
            for one in document.get("links", ())
        )
        self.cases = tuple(
            Case(
                name=one["case"],
                who=one.get("who", ""),
                does=one.get("does", ""),
                what=one.get("what", ""),
                verdict=one["verdict"],
                context=one.get("context", {}),
                entities=one.get("with", {}),
            )
            for one in document["cases"]
        )

    @cached_property
    def schema(self) -> Any:
        return parse_schema(self.schema_text, "schema.cedarschema")

    @cached_property
    def policies(self) -> Any:
        """Linked, and strictly valid."""
        read = parse_policies({"policies.cedar": self.text}, templates=True)
        return with_links(read, self.links, self.schema)

    @cached_property
    def compiled(self) -> Any:
        return compile_policies(self.policies)

    @cached_property
    def theirs(self) -> cedarpy.PolicySet:
        """The same text as cedarpy reads it, under the same ids."""
        read = cedarpy.PolicySet.from_str(self.text)
        if not self.links:
            return read
        batch = [
            {
                "template_id": one.template,
                "new_id": one.id,
                "values": {slot: entity._asdict() for slot, entity in one.values.items()},
            }
            for one in self.links
        ]
        return read.with_linked_batch(batch)

    def forms(self, case: Case) -> list[dict[str, Any]]:
        """The entities of a case in Cedar's JSON form."""
        return [_form(name, given) for name, given in {**self.world, **case.entities}.items()]

    def answers(self, case: Case) -> dict[str, str]:
        """Who decides -> the verdict, and the error where there was one."""
        forms = self.forms(case)
        entities = entities_from_json(forms, self.schema)
        action = EntityUid("Action", case.does)
        types = self.schema.actions[action].context.attributes
        who, what = uid(case.who), uid(case.what)
        context = record_from_json(_value(case.context), types)
        asked = (who, action, what, context)
        reference = authorize(self.policies, Env(*asked, entities), forbid_error_denies=True)
        view = _stored(entities, [*self.schema.actions, *(uid(f) for f in self._names(case))])
        compiled = self.compiled.decide(*asked, view, forbid_error_denies=True)
        request = {
            "principal": literal(who),
            "action": literal(action),
            "resource": literal(what),
            "context": _value(case.context),
        }
        theirs = cedarpy.is_authorized(
            request, self.theirs, json.dumps(forms), schema=self.schema_text
        )
        return {
            "reference": _told(reference),
            "compiled": _told(compiled),
            "cedarpy": "; ".join(
                ["allow" if theirs.allowed else "deny", *theirs.diagnostics.errors]
            ),
        }

    def _names(self, case: Case) -> list[str]:
        return [*self.world, *case.entities]


def uid(text: str) -> EntityUid:
    """``Type::id``."""
    kind, _, name = text.partition("::")
    return EntityUid(kind, name)


def literal(entity: EntityUid) -> str:
    return f"{entity.type}::{json.dumps(entity.id)}"


def _stored(entities: Entities, uids: list[EntityUid]) -> Any:
    found = (entities.get(one) for one in dict.fromkeys(uids))
    return EntityStore(entity for entity in found if entity is not None).view


def _told(answer: Answer) -> str:
    return "; ".join(["allow" if answer.allowed else "deny", *(e for _, e in answer.errors)])


def _form(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    parents = [uid(parent)._asdict() for parent in given.get("in", ())]
    attrs = {key: _value(value) for key, value in given.items() if key != "in"}
    return {"uid": uid(name)._asdict(), "attrs": attrs, "parents": parents}


def _value(given: Any) -> Any:
    match given:
        case str() if given.startswith("@"):
            return {"__entity": uid(given[1:])._asdict()}
        case Mapping():
            return {key: _value(value) for key, value in given.items()}
        case list():
            return [_value(value) for value in given]
        case _:
            return given
