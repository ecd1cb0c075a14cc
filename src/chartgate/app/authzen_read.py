"""Bytes that somebody sent, to a typed value or a refusal: limits, depth, duplicate keys.

The rules kept: JSON is what I-JSON says (RFC 7493: UTF-8, no key twice, numbers that fit, no lone
surrogate, no NUL either, which PostgreSQL cannot hold); nothing nests deeper than ``MAX_DEPTH``; what
a message says of a fault is the field's name, never its value. Unknown fields are passed over.
"""

import json
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from chartgate.app.authzen_errors import BadRequest, TooLarge
from chartgate.app.question import Question

MAX_BODY: Final = 1024 * 1024
"""Bytes of one request; a server refuses more by ``Content-Length`` before reading it."""

MAX_DEPTH: Final = 16
"""How deep values of ``properties`` and ``context`` nest."""

MAX_NAME: Final = 1_024
"""Characters of a patient's key, as of every id: what is remembered of it is bounded by number."""

_LONGEST: Final = 2**63

T = TypeVar("T")


def decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as the decoder's type; raises ``BadRequest``. See also ``check_text``."""
    check_size(body)
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        refuse(fault)


def check_size(body: bytes) -> None:
    """Raise for a body that is empty, or larger than is ever read."""
    if len(body) > MAX_BODY:
        raise TooLarge(f"a request has at most {MAX_BODY} bytes")
    if not body:
        raise BadRequest("the body is empty")


def refuse(fault: Exception) -> NoReturn:
    """Raise ``BadRequest`` in words that name the field, out of a decoder's fault."""
    raise BadRequest(words_of(fault)) from None


def words_of(fault: Exception) -> str:
    """What is wrong, for whoever wrote the request. Only our own names and positions are in it."""
    if isinstance(fault, msgspec.ValidationError):
        words, _, path = str(fault).partition(" - at `$")
        where = path.rstrip("`").lstrip(".").replace("[...]", "") or "the body"
        return f"{where}: {words[:1].lower()}{words[1:]}".replace("`", "")
    if isinstance(fault, UnicodeDecodeError):
        return "the body is not UTF-8"
    if isinstance(fault, RecursionError):
        return "the body nests too deeply"
    return "the body is not JSON"


def check_values(values: dict[str, Any], depth: int = 1) -> None:
    """Raise for what nests too deeply, or is a number that Cedar does not know."""
    for value in values.values():
        kind = value.__class__
        if kind is not str and kind is not bool:
            _check_value(value, depth)


def check_resource(values: dict[str, Any]) -> None:
    """The same, of a resource's properties; its patient is an id, and as long as one at most."""
    patient = values.get("patient")
    if patient.__class__ is str and len(patient) > MAX_NAME:
        raise BadRequest(f"resource.properties.patient: expected at most {MAX_NAME} characters")
    check_values(values)


def check_question(question: Question) -> None:
    """The same, of everything that a question says."""
    if values := question.subject.properties:
        check_values(values)
    if values := question.action.properties:
        check_values(values)
    if values := question.resource.properties:
        check_resource(values)
    if values := question.context:
        check_values(values)


def _check_value(value: Any, depth: int) -> None:
    kind = value.__class__
    if kind is int or kind is float:
        if not -_LONGEST <= value < _LONGEST:
            raise BadRequest("a number does not fit into 64 bits")
        return
    if kind is not dict and kind is not list:
        return
    if depth >= MAX_DEPTH:
        raise BadRequest(f"properties and context nest at most {MAX_DEPTH} deep")
    for item in value.values() if kind is dict else value:
        _check_value(item, depth + 1)


def check_text(body: bytes, kept: Any = None) -> None:
    """Raise unless no object of the body has a key twice, and all of it is UTF-8.

    ``kept``: what was read of it. Written out again it has a colon for every key that was kept, and
    those of its texts. A body that has no more than that (and no ``\\u`` that could hide one) has no
    second key of a name, and need not be read again.
    """
    if kept is not None and b"\\u" not in body and body.count(b":") == _encode(kept).count(b":"):
        return
    try:
        _strict.decode(body.decode())
    except (ValueError, RecursionError) as fault:
        refuse(fault)


def may_hold_nul(body: bytes) -> bool:
    """Whether a text of the body can hold NUL: JSON spells it in one way only."""
    return b"\\u0000" in body


def check_no_nul(kept: Any) -> None:
    """Raise where a text that was read holds the character NUL: no database can be asked for it."""
    if _holds_nul(msgspec.to_builtins(kept)):
        raise BadRequest("a text holds the character NUL")


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > 1 and len({name for name, _ in pairs}) != len(pairs):
        raise BadRequest("a key is there twice in one object")


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in name or _holds_nul(item) for name, item in value.items())
    return isinstance(value, list) and any(_holds_nul(item) for item in value)


# Numbers are looked at elsewhere: here a long one must not cost anything.
_strict: Final = json.JSONDecoder(object_pairs_hook=_once, parse_int=len, parse_float=len)
_encode: Final = msgspec.json.Encoder().encode
