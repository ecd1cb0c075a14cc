"""Policies read by their parts, so that no clause and no scope is parsed a second time.

A hospital's policies say the same few things over and over: a thousand of them share one scope or
one clause. The rule kept: this only saves work, it decides nothing. Cedar's grammar makes a policy
of annotations, then effect and scope, then clauses, one after the other; so where each part stands
as a policy of its own with that part and nothing else, the whole is a policy of just these parts.
What does not, for whatever reason, is left to the reading of that one policy, which tells the
fault and its place. Strict validation reads the whole text in any case.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias

import cedarpy

from chartgate.cedar import est
from chartgate.cedar.ast import Condition, Origin, Policy, Scope
from chartgate.cedar.lex import Piece

# Of parts read in one call; cedarpy and its JSON form take about a kilobyte for each word, and a
# word is seldom shorter than three letters.
MAX_BATCH: Final = 32 * 1024
# A longer policy is rarely one of a family.
MAX_WHOLE: Final = 16 * 1024

# Annotations that say what they are by themselves: no escapes, no comments, plain names.
_PLAIN: Final = re.compile(r'@([a-z][a-z_]*)\("([A-Za-z0-9_ .,:;()/-]*)"\)\s*')
_PLAIN_NOTES: Final = re.compile(f"(?:{_PLAIN.pattern})*")

_ANY: Final = "permit(principal, action, resource)"


Notes: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Head:
    """Effect and scope."""

    effect: Any
    scopes: tuple[Scope, Scope, Scope]


@dataclass(frozen=True, slots=True)
class Parted:
    """A policy put together from its parts."""

    notes: Notes
    head: Head
    conditions: tuple[Condition, ...]

    def policy(self, policy_id: str, origin: Origin, text: str) -> Policy:
        """The policy under its id."""
        head = self.head
        return Policy(
            policy_id, head.effect, *head.scopes, self.conditions, self.notes, origin, text
        )  # fmt: skip


class _Part(NamedTuple):
    """The text of a part, and what it is: ``_WHOLE``, ``_NOTES``, ``_HEAD`` or a clause.

    Of a clause, the number is among how many it stands, which counts into its depth.
    """

    text: str
    kind: int


_WHOLE: Final = -2
_NOTES: Final = -1
_HEAD: Final = 0
_NOTHING: Final = Head("permit", (Scope(), Scope(), Scope()))
_Value: TypeAlias = Notes | Head | Condition | Parted


class Parts:
    """The scopes and clauses met so far: each text is read once."""

    def __init__(self) -> None:
        self._known: dict[_Part, _Value | None] = {}

    def read(self, pieces: Sequence[Piece]) -> list[Parted | None]:
        """Each policy, or None where it must be read by itself."""
        split = [_split(piece) for piece in pieces]
        met = Counter(part for parts in split for part in parts)
        met.update(part for part in met if part in self._known)
        split = [_rather_whole(parts, met) for parts in split]
        self._learn_all(dict.fromkeys(part for parts in split for part in parts))
        found = [self._parted(parts) for parts in split]
        for parts in split:
            # Annotations hold an id, and no two policies have the same.
            if parts and parts[0].kind < _HEAD:
                self._known.pop(parts[0], None)
        return found

    def _parted(self, parts: list[_Part]) -> Parted | None:
        if not parts:
            return None
        first, *rest = [self._known[part] for part in parts]
        if not rest:
            return first if isinstance(first, Parted) else None
        head, *clauses = rest
        conditions = tuple([clause for clause in clauses if isinstance(clause, Condition)])
        if not isinstance(first, tuple) or not isinstance(head, Head):
            return None
        return Parted(first, head, conditions) if len(conditions) == len(clauses) else None

    def _learn_all(self, parts: Iterable[_Part]) -> None:
        batch: list[_Part] = []
        size = 0
        for part in parts:
            if part in self._known:
                continue
            if part.kind == _NOTES and (notes := _plain_notes(part.text)) is not None:
                self._known[part] = notes
                continue
            if batch and size + len(part.text) > MAX_BATCH:
                self._learn(batch)
                batch, size = [], 0
            batch.append(part)
            size += len(part.text) + len(_ANY)
        if batch:
            self._learn(batch)

    def _learn(self, batch: Sequence[_Part]) -> None:
        try:
            self._known.update(zip(batch, _together(batch), strict=True))
        except (ValueError, TypeError, LookupError, RecursionError, est.UnknownForm):
            # One of them is no part, or not what it was taken for: which one shows alone.
            if len(batch) == 1:
                self._known[batch[0]] = None
                return
            for part in batch:
                self._learn([part])


def _rather_whole(parts: list[_Part], met: Mapping[_Part, int]) -> list[_Part]:
    """One part that is the whole, where taking it apart would be the longer way."""
    new = sum(1 for part in parts if met[part] == 1 and part.kind >= _HEAD)
    return [_Part("".join(part.text for part in parts), _WHOLE)] if new > 1 else parts


def _split(piece: Piece) -> list[_Part]:
    """Annotations, head, clauses; nothing where the policy does not fall into these."""
    ends, text = piece.ends, piece.text
    if len(ends) < 3 or len(text) > MAX_WHOLE:
        return []
    clauses = len(ends) - 3
    kinds = (_NOTES, _HEAD, *(clauses,) * clauses)
    return [
        _Part(text[begin:end], kind)
        for (begin, end), kind in zip(pairwise(ends), kinds, strict=True)
    ]


def _plain_notes(text: str) -> Notes | None:
    """Annotations that need no parser; None where the parser must read them."""
    if not _PLAIN_NOTES.fullmatch(text):
        return None
    found = _PLAIN.findall(text)
    # A name that is there twice is a fault, which the parser tells.
    return tuple(sorted(found)) if len(dict(found)) == len(found) else None


def _alone(part: _Part, number: int) -> str:
    """The part as a policy of its own, with its number as a last clause."""
    before = f"{_ANY}\n" if part.kind > 0 else ""
    after = f"\n{_ANY}" if part.kind == _NOTES else ""
    # A comment at the end of a part ends with the line.
    return f"{before}{part.text}{after}\nwhen {{ {number} }};\n"


def _together(batch: Sequence[_Part]) -> list[_Value]:
    text = "".join(_alone(part, number) for number, part in enumerate(batch))
    forms = json.loads(cedarpy.policies_to_json_str(text))
    policies = forms["staticPolicies"]
    if forms["templates"] or forms["templateLinks"] or len(policies) != len(batch):
        raise est.UnknownForm("not as many policies as parts")
    found: dict[int, _Value] = {}
    for form in policies.values():
        *clauses, last = form["conditions"]
        number = last["body"]["Value"]
        found[number] = _value(batch[number], form, clauses)
    return [found[number] for number in range(len(batch))]


def _value(part: _Part, form: Any, clauses: list[Any]) -> _Value:
    notes = est.annotations(form)
    head = Head(*est.head(form))
    if part.kind == _WHOLE:
        conditions = tuple([est.condition(clause, len(clauses)) for clause in clauses])
        return Parted(notes, head, conditions)
    if part.kind == _NOTES and head == _NOTHING and not clauses:
        return notes
    if part.kind == _HEAD and not notes and not clauses:
        return head
    if part.kind > 0 and not notes and head == _NOTHING and len(clauses) == 1:
        return est.condition(clauses[0], part.kind)
    raise est.UnknownForm("a part is not what it was taken for")
