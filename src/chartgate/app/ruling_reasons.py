"""Why not: in words that a person can act on, with the clauses that the denial serves.

The rules kept: a reason quotes no value, only names that the policies and the schema give; somebody
with no business with a patient is told the same whether or not there is such a patient (45 CFR
164.502(b): that somebody is a patient here is itself protected).
"""

from collections.abc import Iterable, Mapping
from typing import Final

from chartgate.app.clauses import citations
from chartgate.app.ruling import Reason
from chartgate.cedar.ast import Policy

MINIMUM: Final = ("164.502(b)", "164.514(d)(2)")

OUT_OF_SCOPE: Final = Reason(
    "out_of_scope",
    "This application's account does not cover that action, type or category; its owner can have it "
    "changed.",
    ("164.312(a)(1)", "164.502(b)"),
)
UNKNOWN_SUBJECT: Final = Reason(
    "unknown_subject",
    "There is no open account of this name.",
    ("164.312(d)", "164.308(a)(4)(ii)(B)"),
)
NO_ROLE: Final = Reason(
    "no_permit",
    "No role is held at this time; whoever assigns roles can give one.",
    ("164.308(a)(4)(ii)(B)", *MINIMUM),
)
PURPOSE_REFUSED: Final = Reason(
    "purpose_refused",
    "None of the roles held now may act for this purpose.",
    ("164.506(a)", *MINIMUM),
)
CATEGORY_NEEDED: Final = Reason(
    "category_needed",
    "Name what of the record is asked about: category, categories or fields.",
    ("164.502(b)",),
)
UNKNOWN_CATEGORY: Final = Reason(
    "not_askable",
    "The policies know no such category: their schema lists those there are.",
    ("164.502(b)",),
)
UNLABELLED: Final = Reason(
    "not_askable",
    "A field is not in the data map (as table.column), or carries no label there: nobody sees it.",
    MINIMUM,
)
PATIENT_NEEDED: Final = Reason(
    "patient_needed",
    "Name the patient whose record is asked about.",
    ("164.312(b)", "164.502(b)"),
)
RECIPIENT_NEEDED: Final = Reason(
    "recipient_needed",
    "Name who is to receive it: context.recipient.",
    ("164.528(b)(2)",),
)
NOT_ALLOWED: Final = Reason(
    "not_allowed",
    "No role held now gives this of such a patient, or there is no such patient.",
    MINIMUM,
)
NO_PERMIT: Final = Reason("no_permit", "No role held now gives this.", MINIMUM)
LESS: Final = Reason(
    "no_permit", "The roles held now give less than was asked for: see the levels.", MINIMUM
)


def not_askable(words: str) -> Reason:
    """The schema does not let it be asked."""
    return Reason("not_askable", f"{words[:1].upper()}{words[1:]}.")


def wrong_type(words: str) -> Reason:
    """A value that counts is not what the policies declare."""
    return Reason("wrong_type", f"The question cannot be read: {words}.")


class Forbidden:
    """Reasons of denials by forbids, made once per combination."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._policies: Final = {p.id: p for p in policies if p.effect == "forbid"}
        self._kept: Final[dict[tuple[str, ...], Reason]] = {}

    def reason(self, ids: tuple[str, ...], failed: tuple[str, ...] = ()) -> Reason:
        """What the forbids say; ``failed``: those among them that could not be evaluated."""
        # A forbid that fails stands for what it was written to close, and says so itself.
        failing = tuple(name for name in ids if name in failed)
        key = (*ids, "", *failing)
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            found = self._kept[key] = self._made(ids, failing)
        return found

    def _made(self, ids: tuple[str, ...], failing: tuple[str, ...]) -> Reason:
        rules = [self._words(name, failing) for name in ids]
        owners = [
            owner
            for name in ids
            if name in self._policies and (owner := self._policies[name].annotation("owner"))
        ]
        asked = f" Whom to ask: {', '.join(dict.fromkeys(owners))}." if owners else ""
        return Reason(
            "forbidden",
            f"Forbidden by: {'; '.join(rules)}.{asked}",
            clauses_of(self._policies, ids),
        )

    def _words(self, name: str, failing: tuple[str, ...]) -> str:
        policy = self._policies.get(name)
        said = None if policy is None else policy.annotation("title")
        words = said or name.replace("_", " ")
        return f"{words} (it could not be evaluated)" if name in failing else words


_MOST_KEPT: Final = 4_096


def clauses_of(policies: Mapping[str, Policy], ids: Iterable[str]) -> tuple[str, ...]:
    """The clauses that the policies cite, each once, in their order; never none."""
    found: dict[str, None] = {}
    for name in ids:
        policy = policies.get(name)
        cited = None if policy is None else policy.annotation("clause")
        if cited:
            found.update((str(citation), None) for citation in citations(cited)[0])
    return tuple(found) or MINIMUM
