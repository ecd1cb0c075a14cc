"""Invariants: what must hold for every request there can be, in words and as a claim to be proved.

The rule kept (45 CFR 164.308(a)(8), evaluation; 164.316(b), policies in writing): each invariant
is written by a person, says in words what holds, cites its clause, and states it in a form that a
prover decides. A key or word that is not known is a fault of the file, so that a misspelt line
cannot pass as a proof.

A file consists of ``[[invariant]]`` tables:

=============== ====================================================================================
``id``          short name, unique in the folder
``words``       the claim as a sentence
``clause``      what it follows from: ``164.508(a)(2)``
``claim``       one of the claims below
``actions``     Cedar actions it is about; default: all (``at_most``: those of viewing; with
                ``categories``: those about records)
``roles``       only people who hold one of these roles
``held``        ``"alone"`` (default): they hold no other role; ``"with_others"``: whatever other
                roles they hold, as long as the permit comes from one of these
``categories``  only records under these labels
``level``       ``withheld``, ``masked``, ``summary``: for ``at_most``
``when``        a Cedar expression over principal, action, resource and context
``unless``      the same, negated
``policies``    ids of policies
``expressions`` Cedar expressions, compared with one another
=============== ====================================================================================

================ ===================================================================================
``never``        no request within these bounds is allowed
``at_most``      no cell is seen better than ``level``
``always``       every request within these bounds is allowed
``never_errors`` no policy (of ``policies``, or at all) fails on a well-formed request
``equivalent``   the policies, or expressions, hold for the same requests
``implies``      whenever the first holds the next one holds
``disjoint``     no request for which two of them hold
``not_vacuous``  each policy holds for some request
``not_shadowed`` each policy decides something: without it some answer would be another
================ ===================================================================================
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args
from typing import Literal as OneOf

from chartgate.app.policy_bundle import INVARIANTS, Bundle, PolicyVersion
from chartgate.app.rolebook import UnknownName
from chartgate.cedar.ast import Expr, Policy
from chartgate.cedar.parse import InvalidPolicies, parse_policies, validate
from chartgate.errors import Misconfigured
from chartgate.model.disclosure import VIEW_ACTIONS, Disclosure
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import RECORD
from chartgate.targets.smt.gate import PERSON

Claim = OneOf[
    "never", "at_most", "always", "never_errors", "equivalent", "implies", "disjoint",
    "not_vacuous", "not_shadowed",
]  # fmt: skip
Held = OneOf["alone", "with_others"]

CLAIMS: Final[tuple[Claim, ...]] = get_args(Claim)
_ABOUT_REQUESTS: Final = frozenset({"never", "at_most", "always"})
_COMPARING: Final = frozenset({"equivalent", "implies", "disjoint"})
_ABOUT_POLICIES: Final = frozenset({"never_errors", "not_vacuous", "not_shadowed"})
_ID: Final = re.compile(r"[a-z][a-z0-9_]*\Z")


class InvalidInvariant(Misconfigured):
    """An invariant cannot be proved as written; the message names file, invariant and key."""

    code = "invalid_invariant"


@dataclass(frozen=True, slots=True)
class Invariant:
    """One claim. ``when`` and ``unless`` and ``expressions`` are parsed, their text beside them."""

    file: str
    id: str
    words: str
    clause: str
    claim: Claim
    actions: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    held: Held = "alone"
    categories: tuple[str, ...] = ()
    level: Disclosure | None = None
    when: Expr | None = None
    unless: Expr | None = None
    policies: tuple[str, ...] = ()
    expressions: tuple[tuple[str, Expr], ...] = ()


def invariants_of(version: PolicyVersion) -> tuple[Invariant, ...]:
    """All invariants of a policy folder, in the order of their files; there may be none."""
    found: list[Invariant] = []
    for path in version.bundle.below(INVARIANTS):
        found += read_invariants(path, version.bundle.toml(path), version)
    seen: dict[str, str] = {}
    for invariant in found:
        if invariant.id in seen:
            raise InvalidInvariant(
                f"{invariant.file}: {invariant.id!r} is also in {seen[invariant.id]}"
            )
        seen[invariant.id] = invariant.file
    return tuple(found)


def count_invariants(bundle: Bundle) -> int:
    """How many invariants a folder holds, without proving that any of them reads well."""
    return sum(len(bundle.toml(path).get("invariant", ())) for path in bundle.below(INVARIANTS))


def read_invariants(
    file: str, document: Mapping[str, Any], version: PolicyVersion
) -> tuple[Invariant, ...]:
    """The invariants of one parsed TOML file, strictly, for the policies they are about."""
    tables = document.get("invariant")
    if set(document) != {"invariant"} or not isinstance(tables, list) or not tables:
        raise InvalidInvariant(f"{file}: an invariant file consists of [[invariant]] tables")
    return tuple(_Reader(file, n, form, version).read() for n, form in enumerate(tables, start=1))


class _Reader:
    """One table, read key by key; a key left over is a fault."""

    def __init__(self, file: str, number: int, form: Any, version: PolicyVersion) -> None:
        if not isinstance(form, Mapping):
            raise InvalidInvariant(f"{file}: invariant {number}: not a table")
        name = form.get("id")
        self._where = f"{file}: {name!r}" if isinstance(name, str) else f"{file}: {number}"
        self._file = file
        self._left = dict(form)
        self._version = version
        self._implied: tuple[str, ...] = ()

    def read(self) -> Invariant:
        name = self._text("id")
        if not _ID.match(name):
            raise self._fault("id consists of small letters, digits and underscores")
        claim = next((c for c in CLAIMS if c == self._left.get("claim")), None)
        if claim is None:
            raise self._fault(f"claim is one of {', '.join(CLAIMS)}")
        del self._left["claim"]
        self._implied = self._actions(claim)
        actions = self._names("actions", {uid.id for uid in self._version.schema.actions})
        invariant = Invariant(
            file=self._file,
            id=name,
            words=self._text("words"),
            clause=self._text("clause"),
            claim=claim,
            actions=actions,
            roles=self._names("roles", self._version.roles.roles),
            held=self._held(),
            categories=self._names("categories", self._categories()),
            level=self._level(),
            when=self._condition("when", actions),
            unless=self._condition("unless", actions),
            policies=self._names("policies", {p.id for p in self._version.policies.policies}),
            expressions=tuple(
                (text, self._parsed("expressions", text, actions))
                for text in self._texts("expressions")
            ),
        )
        if self._left:
            raise self._fault(f"unknown key {', '.join(sorted(self._left))}")
        self._check(invariant)
        return invariant

    def _actions(self, claim: Claim) -> tuple[str, ...]:
        """What the claim is about when it names no actions."""
        if claim == "at_most":
            return tuple(VIEW_ACTIONS.values())
        about_records = "categories" in self._left
        return tuple(
            sorted(
                uid.id
                for uid, action in self._version.schema.actions.items()
                if action.resources and (RECORD in action.resources or not about_records)
            )
        )

    def _check(self, i: Invariant) -> None:
        """Keys that the claim does not use would be read by people and by nothing else."""
        if (i.level is not None) != (i.claim == "at_most"):
            raise self._fault("level belongs to at_most, and at_most needs one")
        if i.claim == "at_most" and i.actions:
            raise self._fault("at_most is about the three levels of viewing: no actions")
        if i.claim not in _ABOUT_REQUESTS and (i.roles or i.categories or i.held != "alone"):
            raise self._fault(f"roles, held and categories mean nothing to {i.claim}")
        if i.held != "alone" and not i.roles:
            raise self._fault("held says how the roles are held: it needs roles")
        if i.claim in _ABOUT_POLICIES and (i.when or i.unless or i.actions):
            raise self._fault(f"{i.claim} is about whole policies: no actions, when or unless")
        if i.claim in _ABOUT_POLICIES and i.expressions:
            raise self._fault(f"{i.claim} is about policies, not expressions")
        if i.claim in _ABOUT_REQUESTS and (i.policies or i.expressions):
            raise self._fault(f"{i.claim} is about requests: no policies or expressions")
        if i.claim in _COMPARING:
            if bool(i.policies) == bool(i.expressions):
                raise self._fault(f"{i.claim} compares policies or expressions: one of the two")
            if len(i.policies or i.expressions) < 2:
                raise self._fault(f"{i.claim} compares at least two")
        if i.claim == "always" and not i.actions:
            raise self._fault("always says which actions are allowed")
        for name in i.actions:
            action = self._version.schema.actions[EntityUid("Action", name)]
            if PERSON not in action.principals or not action.resources:
                raise self._fault(f"no person can ask for {name}: nothing would be claimed of it")
            if i.categories and RECORD not in action.resources:
                raise self._fault(f"{name} is not about records: it has no categories")

    def _fault(self, reason: str) -> InvalidInvariant:
        return InvalidInvariant(f"{self._where}: {reason}")

    def _text(self, key: str) -> str:
        found = self._left.pop(key, None)
        if not isinstance(found, str) or not found.strip():
            raise self._fault(f"{key} is missing, or not a text")
        return found

    def _texts(self, key: str) -> tuple[str, ...]:
        found = self._left.pop(key, [])
        if not isinstance(found, list) or not all(isinstance(t, str) and t for t in found):
            raise self._fault(f"{key} is not a list of texts")
        if len(set(found)) != len(found):
            raise self._fault(f"{key} names something twice")
        return tuple(found)

    def _names(self, key: str, known: Iterable[str]) -> tuple[str, ...]:
        given, names = key in self._left, self._texts(key)
        if given and not names:
            raise self._fault(f"{key} is empty: leave it out to mean all")
        for name in names:
            if name not in known:
                raise self._fault(f"{key}: there is no {name!r}")
        return names

    def _categories(self) -> tuple[str, ...]:
        kind = self._version.schema.entities.get("Category")
        return (kind.enum or ()) if kind else ()

    def _held(self) -> Held:
        found = self._left.pop("held", "alone")
        if found == "alone":
            return "alone"
        if found == "with_others":
            return "with_others"
        raise self._fault("held is alone or with_others")

    def _level(self) -> Disclosure | None:
        found = self._left.pop("level", None)
        if found is None:
            return None
        for level in Disclosure:
            if level.label == found and level is not Disclosure.FULL:
                return level
        raise self._fault("level is withheld, masked or summary")

    def _condition(self, key: str, actions: tuple[str, ...]) -> Expr | None:
        return None if key not in self._left else self._parsed(key, self._text(key), actions)

    def _parsed(self, key: str, text: str, actions: tuple[str, ...]) -> Expr:
        # Validated as the condition of a policy about the same actions: the same types, the same
        # faults. The line breaks keep a comment at the end from swallowing the bracket.
        names = actions or self._implied
        scope = ", ".join(f'Action::"{name}"' for name in names)
        source = (
            f'@id("{key}") permit (principal, action in [{scope}], resource) when {{\n{text}\n}};'
        )
        try:
            parsed = parse_policies({self._where: source})
            if len(parsed) != 1 or len(parsed.policies[0].conditions) != 1:
                raise self._fault(f"{key} is one Cedar expression")
            validate(parsed, self._version.schema)
            self._version.roles.check_policies(parsed)
        except InvalidPolicies as fault:
            raise self._fault(f"{key}: {'; '.join(fault.problems)}") from fault
        except UnknownName as fault:
            raise self._fault(f"{key}: {fault}") from fault
        policy: Policy = parsed.policies[0]
        return policy.conditions[0].body
