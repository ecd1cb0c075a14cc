"""Requests are read as a slow and plain reader reads them: keys once, every value as it is written.

The service looks for duplicate keys by counting colons; a reader that keeps every pair says whether
there is one.
"""

import json
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartgate.app.authzen import parse_evaluation
from chartgate.app.authzen_batch import Batch, parse_evaluations
from chartgate.app.authzen_errors import BadRequest
from chartgate.app.question import Action, Question, Resource, Subject

Pairs = list[tuple[str, Any]]

texts = st.text(st.sampled_from('ab:"\\\u0000é{}[,'), max_size=4) | st.sampled_from(
    ["type", "id", "name", "subject", "properties", "::", "\\u003a", '":"']
)


class Written(list[tuple[str, Any]]):
    """An object as it is written: pairs, with keys that may come twice."""


def written(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(texts, inner), max_size=3).map(Written)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=3) | written(inner),
    max_leaves=6,
)


class Pen:
    """Writes JSON, with escapes and blanks that need not be; ``whims`` says where."""

    def __init__(self, whims: list[int]) -> None:
        self._whims = cycle(whims)

    def text(self, text: str) -> str:
        kept = []
        for character in text:
            if ord(character) < 32 or character in '"\\' or next(self._whims) == 0:
                kept.append(f"\\u{ord(character):04x}")
            else:
                kept.append(character)
        return '"' + "".join(kept) + '"'

    def value(self, value: Any) -> str:
        gap = ("", "", " ", "\n")[next(self._whims) % 4]
        if isinstance(value, Written):
            pairs = (f"{self.text(k)}{gap}:{gap}{self.value(v)}" for k, v in value)
            return "{" + gap + f",{gap}".join(pairs) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(self.value, value)) + gap + "]"
        return self.text(value) if isinstance(value, str) else json.dumps(value)


whims = st.lists(st.integers(0, 9), min_size=5, max_size=11)


def entity(*fields: str) -> st.SearchStrategy[Written]:
    wanted = st.tuples(*(st.tuples(st.just(field), texts) for field in fields))
    extra = st.lists(
        st.tuples(texts, values) | st.tuples(st.just("properties"), written(values)), max_size=2
    )
    return st.tuples(wanted, extra).map(lambda found: Written([*found[0], *found[1]]))


@st.composite
def bodies(draw: st.DrawFn) -> str:
    pairs: Pairs = [
        ("subject", draw(entity("type", "id"))),
        ("action", draw(entity("name"))),
        ("resource", draw(entity("type", "id"))),
        *draw(
            st.lists(
                st.tuples(st.just("context"), written(values)) | st.tuples(texts, values),
                max_size=2,
            )
        ),
    ]
    return Pen(draw(whims)).value(Written(draw(st.permutations(pairs))))


class Twice(Exception):
    """A key that is there twice."""


def once(pairs: Pairs) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Twice
    return found


def has_a_key_twice(text: str) -> bool:
    try:
        json.loads(text, object_pairs_hook=once)
    except Twice:
        return True
    return False


def holds_nul(value: Any) -> bool:
    return "\\u0000" in json.dumps(value).replace("\\\\", "")


def plainly_read(text: str) -> Question | None:
    """The question; None for what is refused."""
    try:
        body = json.loads(text, object_pairs_hook=once)
    except Twice:
        return None
    parts: dict[str, Any] = {}
    for name, kind, fields in (
        ("subject", Subject, ("type", "id")),
        ("action", Action, ("name",)),
        ("resource", Resource, ("type", "id")),
    ):
        found = body.get(name)
        if not isinstance(found, dict):
            return None
        properties = found.get("properties", {})
        if not isinstance(properties, dict):
            return None
        if not all(isinstance(found.get(field), str) for field in fields):
            return None
        parts[name] = kind(*(found[field] for field in fields), properties)
    context = body.get("context", {})
    if not isinstance(context, dict):
        return None
    question = Question(**parts, context=context)
    if holds_nul([[p.properties for p in parts.values()], context]):
        return None
    if holds_nul([[p.name] if isinstance(p, Action) else [p.type, p.id] for p in parts.values()]):
        return None
    return question


@given(bodies())
def test_a_question_is_read_as_a_plain_reader_reads_it(text: str):
    try:
        read = parse_evaluation(text.encode())
    except BadRequest:
        read = None
    assert read == plainly_read(text)


@given(st.lists(bodies(), min_size=1, max_size=3))
def test_each_item_of_a_batch_is_read_as_it_is_by_itself(texts: list[str]):
    alone = [plainly_read(text) for text in texts]
    body = ('{"evaluations": [' + ", ".join(texts) + "]}").encode()
    if any(has_a_key_twice(text) for text in texts):
        with pytest.raises(BadRequest, match="a key is there twice"):
            parse_evaluations(body)
        return
    read = parse_evaluations(body)
    assert isinstance(read, Batch)
    found = [item if isinstance(item, Question) else None for item in read.items]
    assert found == alone
