"""A hospital of any size as policies: roles, departments, categories, purposes, relations, forbids.

One rule is one value; ``cedar``, ``rego``, ``casbin`` and ``cerbos`` write the same rules for each
engine, and every request holds what each of them needs. All of it follows from the numbers given:
two runs ask the same.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chartgate.cedar.entities import Entity
from chartgate.cedar.values import CedarSet, Value
from chartgate.model.principal import EntityUid

ROLES = {
    "physician": ("clinician",), "nurse": ("clinician",), "pharmacist": ("clinician",),
    "therapist": ("clinician",), "receptionist": ("workforce",), "coder": ("workforce",),
    "privacy_officer": ("workforce",), "lab": ("workforce",), "registrar": ("workforce",),
    "clinician": ("workforce",), "workforce": (),
}  # fmt: skip
WORKING = tuple(role for role in ROLES if role not in ("clinician", "workforce"))
PURPOSES = {"TREAT": (), "ETREAT": ("TREAT",), "HPAYMT": (), "HOPERAT": (), "HMARKT": ()}
ACTIONS = ("view", "view_summary", "view_masked", "create", "update", "delete")
CATEGORIES = (
    "demographics", "notes", "labs", "imaging", "medications", "vitals", "billing", "scheduling",
    "behavioral_health", "psychotherapy_notes", "sud_part2", "gov_ids",
)  # fmt: skip
SEEN = {
    "physician": (("view", "view_summary"), ("demographics", "notes", "labs", "imaging"), "TREAT"),
    "nurse": (("view",), ("demographics", "labs", "vitals", "medications"), "TREAT"),
    "pharmacist": (("view", "update"), ("medications",), "TREAT"),
    "therapist": (("view", "create"), ("behavioral_health", "notes"), "TREAT"),
    "receptionist": (("view", "create", "update"), ("demographics", "scheduling"), "HOPERAT"),
    "coder": (("view_summary", "update"), ("billing",), "HPAYMT"),
    "privacy_officer": (("view_masked",), ("demographics", "notes", "billing"), "HOPERAT"),
    "lab": (("view", "create"), ("labs",), "TREAT"),
    "registrar": (("view", "update"), ("demographics", "gov_ids"), "HOPERAT"),
}
SCHEMA = """
entity Role in [Role];
entity Purpose in [Purpose];
entity Department;
entity Category;
entity User in [Role] = { departments: Set<Department> };
entity Record = {
  category: Category, department: Department, restricted: Bool, care_team: Set<User>, author?: User
};
action view, view_summary, view_masked, create, update, delete appliesTo {
  principal: [User], resource: [Record], context: { purpose: Purpose }
};
"""


@dataclass(frozen=True)
class Rule:
    """One rule; what is not given does not restrict. All that is given must hold."""

    id: str
    effect: str
    actions: tuple[str, ...] = ()
    role: str | None = None
    purpose: str | None = None
    department: str | None = None
    categories: tuple[str, ...] = ()
    restricted: bool = False
    related: bool = False
    """The person is on the care team, or in the record's department."""
    unless_author: bool = False
    unless_care_team: bool = False


def rules(count: int) -> list[Rule]:
    """So many rules: a dozen for the whole hospital, then ten for each department."""
    made = [
        Rule("no_marketing", "forbid", purpose="HMARKT"),
        Rule("author_only", "forbid", categories=("psychotherapy_notes",), unless_author=True),
        Rule("part2", "forbid", ("view", "view_summary"), categories=("sud_part2",)),
        Rule("ids_masked", "forbid", ("view", "view_summary"), categories=("gov_ids",)),
        Rule("never_deleted", "forbid", ("delete",)),
        Rule("restricted", "forbid", ("view",), restricted=True, unless_care_team=True),
        Rule("coders_do_not_view", "forbid", ("view", "create"), role="coder"),
        *(
            Rule(f"{role}_at_large", "permit", ("view_masked",), role, purpose=SEEN[role][2])
            for role in ("physician", "nurse", "pharmacist", "therapist", "lab")
        ),
        Rule("own_notes", "permit", ("view",), "clinician", "TREAT", categories=("notes",), related=True),
    ]  # fmt: skip
    number = 0
    while len(made) < count:
        where = f"d{number}"
        for role in WORKING:
            actions, categories, purpose = SEEN[role]
            made.append(
                Rule(f"{role}_{where}", "permit", actions, role, purpose, where, categories,
                     related=role in ("physician", "nurse", "therapist"))
            )  # fmt: skip
        made.append(
            Rule(f"sealed_{where}", "forbid", (), None, None, where, restricted=True,
                 unless_care_team=True)
        )  # fmt: skip
        number += 1
    return made[:count]


def _cedar_set(type_: str, names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'{type_}::"{name}"' for name in names) + "]"


def cedar(rule: Rule) -> str:
    """The rule in Cedar."""
    who = f'principal in Role::"{rule.role}"' if rule.role else "principal"
    doing = f"action in {_cedar_set('Action', rule.actions)}" if rule.actions else "action"
    if len(rule.actions) == 1:
        doing = f'action == Action::"{rule.actions[0]}"'
    when, unless = [], []
    if rule.purpose:
        when.append(f'context.purpose in Purpose::"{rule.purpose}"')
    if rule.department:
        when.append(f'resource.department == Department::"{rule.department}"')
    if rule.categories:
        when.append(f"{_cedar_set('Category', rule.categories)}.contains(resource.category)")
    if rule.restricted:
        when.append("resource.restricted")
    if rule.related:
        when.append(
            "resource.care_team.contains(principal) || "
            "principal.departments.contains(resource.department)"
        )
    if rule.unless_author:
        unless.append("resource has author && resource.author == principal")
    if rule.unless_care_team:
        unless.append("resource.care_team.contains(principal)")
    clauses = [f"when {{ {c} }}" for c in when] + [f"unless {{ {c} }}" for c in unless]
    return f'@id("{rule.id}") {rule.effect} ({who}, {doing}, resource) {" ".join(clauses)};'


def rego(rule: Rule) -> str:
    """The rule in Rego, as a member of the set ``permit`` or ``forbid``."""
    lines = []
    if rule.actions:
        lines.append(f"input.action in {{{', '.join(json.dumps(a) for a in rule.actions)}}}")
    if rule.role:
        lines.append(f"{json.dumps(rule.role)} in input.roles")
    if rule.purpose:
        lines.append(f"{json.dumps(rule.purpose)} in input.purposes")
    if rule.department:
        lines.append(f"input.resource.department == {json.dumps(rule.department)}")
    if rule.categories:
        names = ", ".join(json.dumps(name) for name in rule.categories)
        lines.append(f"input.resource.category in {{{names}}}")
    lines += ["input.resource.restricted"] if rule.restricted else []
    lines += ["related"] if rule.related else []
    lines += ["not author"] if rule.unless_author else []
    lines += ["not cares"] if rule.unless_care_team else []
    body = "\n  ".join(lines or ["true"])
    return f"{rule.effect} contains {json.dumps(rule.id)} if {{\n  {body}\n}}"


def rego_module(made: list[Rule]) -> str:
    """All rules and what they share."""
    head = (
        "package authz\nimport rego.v1\n"
        "cares if input.user in input.resource.care_team\n"
        "author if input.resource.author == input.user\n"
        "related if cares\n"
        "related if input.resource.department in input.departments\n"
        "default allow := false\n"
        "allow if { count(permit) > 0; count(forbid) == 0 }\n"
        'answer := {"allow": allow, "permit": permit, "forbid": forbid}\n'
    )
    return head + "\n".join(rego(rule) for rule in made)


def casbin(rule: Rule) -> str:
    """The rule as an expression over ``r.sub`` and ``r.obj``, for pycasbin's ``eval``."""

    def any_of(name: str, values: tuple[str, ...]) -> str:
        return "(" + " || ".join(f"{name} == '{value}'" for value in values) + ")"

    cares = "has(r.obj.care_team, r.sub.name)"
    parts = []
    if rule.actions:
        parts.append(any_of("r.act", rule.actions))
    if rule.role:
        parts.append(f"has(r.sub.roles, '{rule.role}')")
    if rule.purpose:
        parts.append(f"has(r.sub.purposes, '{rule.purpose}')")
    if rule.department:
        parts.append(f"r.obj.department == '{rule.department}'")
    if rule.categories:
        parts.append(any_of("r.obj.category", rule.categories))
    if rule.restricted:
        parts.append("r.obj.restricted")
    if rule.related:
        parts.append(f"({cares} || has(r.sub.departments, r.obj.department))")
    if rule.unless_author:
        parts.append("r.obj.author != r.sub.name")
    if rule.unless_care_team:
        parts.append(f"!{cares}")
    return " && ".join(parts or ["true"])


def cerbos(rule: Rule) -> dict[str, Any]:
    """The rule as one of a Cerbos resource policy."""
    tests = []
    if rule.purpose:
        tests.append(f'"{rule.purpose}" in P.attr.purposes')
    if rule.department:
        tests.append(f'R.attr.department == "{rule.department}"')
    if rule.categories:
        tests.append(f"R.attr.category in {json.dumps(list(rule.categories))}")
    if rule.restricted:
        tests.append("R.attr.restricted")
    if rule.related:
        tests.append("(P.id in R.attr.care_team || R.attr.department in P.attr.departments)")
    if rule.unless_author:
        tests.append("!(has(R.attr.author) && R.attr.author == P.id)")
    if rule.unless_care_team:
        tests.append("!(P.id in R.attr.care_team)")
    form: dict[str, Any] = {
        "name": rule.id,
        "actions": list(rule.actions) or ["*"],
        "roles": [rule.role or "*"],
        "effect": "EFFECT_ALLOW" if rule.effect == "permit" else "EFFECT_DENY",
    }
    if tests:
        form["condition"] = {"match": {"all": {"of": [{"expr": test} for test in tests]}}}
    return form


@dataclass(frozen=True)
class Request:
    """One question, with the record it is about."""

    person: EntityUid
    action: EntityUid
    record: Entity
    purpose: str
    departments: tuple[str, ...]
    roles: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def context(self) -> dict[str, Value]:
        """As Cedar sees it."""
        return {"purpose": EntityUid("Purpose", self.purpose)}

    @property
    def purposes(self) -> tuple[str, ...]:
        """The purpose and the wider ones."""
        return (self.purpose, *PURPOSES[self.purpose])


def _above(role: str) -> Iterator[str]:
    yield role
    for parent in ROLES[role]:
        yield from _above(parent)


def world(count: int) -> list[Entity]:
    """So many entities or a few more: roles, purposes, and people with roles and departments."""
    made = [
        Entity(EntityUid("Role", r), {}, frozenset(EntityUid("Role", p) for p in parents))
        for r, parents in ROLES.items()
    ]
    made += [
        Entity(EntityUid("Purpose", n), {}, frozenset(EntityUid("Purpose", p) for p in parents))
        for n, parents in PURPOSES.items()
    ]
    return made + [person(number) for number in range(max(4, count - len(made)))]


def _person(number: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    chance = random.Random(number)
    roles = tuple(sorted({chance.choice(WORKING) for _ in range(chance.choice((1, 1, 1, 2)))}))
    return roles, tuple(sorted({f"d{chance.randrange(3)}", f"d{chance.randrange(40)}"}))


def person(number: int) -> Entity:
    """A person; always the same for the same number."""
    roles, departments = _person(number)
    return Entity(
        EntityUid("User", f"u{number}"),
        {"departments": CedarSet.of(EntityUid("Department", d) for d in departments)},
        frozenset(EntityUid("Role", r) for r in roles),
    )


def requests(count: int, people: int, departments: int) -> list[Request]:
    """So many questions; most are about the person's own departments and her own work."""
    chance = random.Random(7)
    made = []
    for _ in range(count):
        number = chance.randrange(people)
        roles, own = _person(number)
        actions, categories, purpose = SEEN[chance.choice(roles)]
        usual = chance.random() < 0.7
        where = chance.choice(own) if usual else f"d{chance.randrange(max(1, departments))}"
        team = sorted({f"u{chance.randrange(people)}" for _ in range(3)})
        if chance.random() < 0.3:
            team.append(f"u{number}")
        attributes = {
            "category": chance.choice(categories if usual else CATEGORIES),
            "department": where,
            "restricted": chance.random() < 0.1,
            "care_team": team,
        }
        if chance.random() < 0.5:
            attributes["author"] = chance.choice(team)
        record = Entity(
            EntityUid("Record", "asked"),
            {
                "category": EntityUid("Category", attributes["category"]),
                "department": EntityUid("Department", where),
                "restricted": attributes["restricted"],
                "care_team": CedarSet.of(EntityUid("User", name) for name in team),
                **(
                    {"author": EntityUid("User", attributes["author"])}
                    if "author" in attributes
                    else {}
                ),
            },
        )
        made.append(
            Request(
                EntityUid("User", f"u{number}"),
                EntityUid("Action", chance.choice(actions if usual else ACTIONS)),
                record,
                purpose if usual else chance.choice(tuple(PURPOSES)),
                own,
                tuple(dict.fromkeys(name for role in roles for name in _above(role))),
                attributes,
            )
        )
    return made
