"""What a caller reads when a request is not answered, and what of the request's headers is believed.

The rules kept (AuthZEN 1.0, "Error responses"): a request that is not as the specification has it is
400 and its message names the field; a denial is not an error. No message, code or header ever
repeats a value of the request: it may be a patient's.
"""

import re
from typing import ClassVar, Final

import msgspec

from chartgate.errors import Refused

JSON: Final = b"application/json"

MAX_REQUEST_ID: Final = 128
_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}", re.ASCII)


class BadRequest(Refused):
    """A request that cannot be answered; ``status`` is HTTP's (RFC 9110, section 15.5)."""

    code: ClassVar[str] = "bad_request"
    status: ClassVar[int] = 400


class TooLarge(BadRequest):
    """More bytes than one request may have."""

    code = "too_large"
    status = 413


class TooManyItems(BadRequest):
    """More questions than one request may hold."""

    code = "too_many_items"


class NotJson(BadRequest):
    """The content type is not ``application/json``; AuthZEN asks for 400 here, not 415."""

    code = "not_json"


class BadPage(BadRequest):
    """A page token that is not ours, or belongs to another query or limit."""

    code = "bad_page"


class RecordedAt(msgspec.Struct, frozen=True):
    """Where the audit log holds the decision: the log's origin, and the index of the entry."""

    log: str
    index: int


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Every answer that is not 200. ``error`` is for programs and never changes once released."""

    error: str
    message: str
    audit: RecordedAt | None = None


_encode: Final = msgspec.json.Encoder().encode


def error_body(code: str, message: str, audit: RecordedAt | None = None) -> bytes:
    """The body of an answer that is not 200."""
    return _encode(ErrorBody(code, message, audit))


def refused_body(fault: Refused) -> bytes:
    """The same, of a request that was refused."""
    return _encode(ErrorBody(fault.code, str(fault)))


def check_content_type(value: bytes | None) -> None:
    """Raise ``NotJson`` unless it is JSON; parameters (``charset=utf-8``) change nothing."""
    if value == JSON:
        return
    media = (value or b"").partition(b";")[0].strip(b" \t").lower()
    if media != JSON:
        raise NotJson("the content type has to be application/json")


def echoed_request_id(value: bytes | None) -> bytes | None:
    """What of ``X-Request-ID`` is sent back: at most 128 visible characters, or nothing at all.

    No byte passes that could end a header or start another one.
    """
    if value is not None and _REQUEST_ID.fullmatch(value):
        return value
    return None
