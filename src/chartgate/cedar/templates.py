"""Templates and what is made of them (Cedar "Policy templates and template-linked policies").

Cedar's linking rules are kept: the template must exist, every slot is given and nothing else, a
link's id is its own and no other policy's, annotations stay the template's. A link is all or
nothing: one fault, and no link of the batch exists. A linked policy carries its own text, so strict
validation sees it as it will be decided, with its entities in place of the slots.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from chartgate.cedar.ast import Policy, PolicySet, Slot
from chartgate.cedar.entities import InvalidEntities, entity_uid_from_json
from chartgate.cedar.lex import InvalidPolicies, one_line
from chartgate.cedar.parse import policy_set
from chartgate.cedar.schema import Schema
from chartgate.cedar.text import policy_text
from chartgate.cedar.validate import validate
from chartgate.model.principal import EntityUid


@dataclass(frozen=True, slots=True)
class Link:
    """Which template, under which new id, with which entity for each slot."""

    template: str
    id: str
    values: Mapping[str, EntityUid]


def slots(policy: Policy) -> tuple[str, ...]:
    """The open slots of a template, ``?principal`` before ``?resource``."""
    scopes = (policy.principal, policy.resource)
    return tuple(e.name for scope in scopes for e in scope.entities if isinstance(e, Slot))


def link(template: Policy, new_id: str, values: Mapping[str, EntityUid]) -> Policy:
    """The policy made from the template; ``InvalidPolicies`` names the template and its place."""
    where = f"{template.origin}: template {template.id}"
    wanted = slots(template)
    if not wanted:
        raise InvalidPolicies(f"{where}: a policy without slots cannot be linked")
    if missing := [slot for slot in wanted if slot not in values]:
        raise InvalidPolicies(f"{where}: no value for {missing[0]}")
    if extra := sorted(set(values) - set(wanted)):
        raise InvalidPolicies(f"{where}: has no slot {one_line(extra[0])}")
    if not new_id or not new_id.isprintable() or " " in new_id:
        raise InvalidPolicies(f"{where}: a link's id is not empty and holds no blank")
    made = template.link(new_id, dict(values))
    return replace(made, text=policy_text(made), origin=replace(made.origin, column=0))


def with_links(policies: PolicySet, links: Iterable[Link], schema: Schema | None) -> PolicySet:
    """The set with its templates replaced by what is linked from them, validated strictly.

    ``schema=None`` leaves validation out, as Cedar's own vectors do. Order: the policies as they
    were, then the links as given.
    """
    templates = {p.id: p for p in policies.policies if p.is_template}
    made = {p.id: p for p in policies.policies if not p.is_template}
    for one in links:
        template = templates.get(one.template)
        if template is None:
            raise InvalidPolicies(f"<links>:0: there is no template {one_line(one.template)}")
        linked = link(template, one.id, one.values)
        if linked.id in made or linked.id in templates:
            raise InvalidPolicies(f"{template.origin}: the id {linked.id} is already taken")
        made[linked.id] = linked
    if schema is not None:
        # A template nobody linked must be valid too: it will be linked one day.
        validate(policy_set([*templates.values(), *made.values()]), schema)
    return policy_set(made.values())


def links_from_json(form: Any) -> tuple[Link, ...]:
    """The ``templateLinks`` of Cedar's JSON policy form."""
    if not isinstance(form, list):
        raise InvalidPolicies("<links>:0: templateLinks is not a list")
    return tuple(_link(one, f"<links>:{number}") for number, one in enumerate(form, start=1))


def _link(form: Any, where: str) -> Link:
    if not isinstance(form, dict) or set(form) != {"templateId", "newId", "values"}:
        raise InvalidPolicies(f"{where}: a link has templateId, newId and values")
    values = form["values"]
    if not isinstance(values, dict) or not all(
        isinstance(form[part], str) for part in ("templateId", "newId")
    ):
        raise InvalidPolicies(f"{where}: ids are strings and values an object")
    try:
        bound = {slot: entity_uid_from_json(uid, where) for slot, uid in values.items()}
    except InvalidEntities as fault:
        raise InvalidPolicies(str(fault)) from fault
    return Link(form["templateId"], form["newId"], bound)


def links_to_json(links: Iterable[Link]) -> list[dict[str, Any]]:
    """The links as ``templateLinks`` of Cedar's JSON policy form, which cedarpy reads as well."""
    return [
        {
            "templateId": one.template,
            "newId": one.id,
            "values": {slot: {"type": v.type, "id": v.id} for slot, v in one.values.items()},
        }
        for one in links
    ]
