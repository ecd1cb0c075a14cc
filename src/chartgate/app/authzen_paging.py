"""Pages of a search: where the next one begins, in a token that nobody else can write.

The rules kept (AuthZEN 1.0, "Pagination"): a token is opaque; with it a changed query or a changed
limit is refused; ``next_token`` is there on every page, and empty on the last. A page begins *after*
the last result of the one before, so a result that comes or goes between them shifts no other.

The token is the limit and that last result, signed (HMAC-SHA-256) together with the digest of the
query and of who asked. It says nothing that its holder has not been told.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from chartgate.app.authzen_errors import BadPage, BadRequest

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1_000

MAX_TOKEN: Final = 8_192
_VERSION: Final = b"\x01"
_MAC: Final = 16


class PageRequest(msgspec.Struct, frozen=True):
    """``page`` of a request; its ``properties`` are ignored, as every unknown field is."""

    token: str | UnsetType = UNSET
    limit: int | float | UnsetType = UNSET


class PageAnswer(msgspec.Struct, frozen=True):
    """``page`` of an answer."""

    next_token: str
    """Empty on the last page."""
    count: int
    """Results on this page."""


class Page(msgspec.Struct, frozen=True):
    """Which results are wanted: at most ``limit``, of those that sort after ``after``."""

    limit: int = DEFAULT_LIMIT
    after: str | None = None


class Pager:
    """Reads and writes the tokens of one deployment; ``key`` is secret and the same on every node."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise ValueError("a key has at least 16 bytes")
        self._key: Final = key

    def page(self, asked: PageRequest | UnsetType, digest: bytes) -> Page:
        """The page asked for; raises ``BadPage`` for a token that is not of this query."""
        if asked is UNSET:
            return Page()
        limit = _limit(asked.limit)
        if asked.token is UNSET or asked.token == "":
            return Page(DEFAULT_LIMIT if limit is UNSET else limit)
        page = self._opened(asked.token, digest)
        if limit is not UNSET and limit != page.limit:
            raise BadPage("page.limit: is another one than the token's")
        return page

    def token(self, page: Page, digest: bytes) -> str:
        """The token under which ``page`` is asked for."""
        signed = _VERSION + page.limit.to_bytes(2) + (page.after or "").encode()
        return _text(self._mac(signed, digest) + signed)

    def _mac(self, signed: bytes, digest: bytes) -> bytes:
        return hmac.digest(self._key, b"chartgate page 1\n" + digest + signed, "sha256")[:_MAC]

    def _opened(self, token: str, digest: bytes) -> Page:
        if len(token) > MAX_TOKEN or not token.isascii():
            raise BadPage(_NOT_OURS)
        try:
            data = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (NotBase64, ValueError):
            raise BadPage(_NOT_OURS) from None
        if _text(data) != token:
            raise BadPage(_NOT_OURS)  # base64 has other spellings of the same bytes
        mac, signed = data[:_MAC], data[_MAC:]
        if not hmac.compare_digest(mac, self._mac(signed, digest)):
            raise BadPage(_NOT_OURS)
        return Page(int.from_bytes(signed[1:3]), signed[3:].decode())


def _limit(asked: float | UnsetType) -> int | UnsetType:
    if asked is UNSET:
        return UNSET
    # JSON knows one kind of number: 5.0 is a whole one (JSON Schema, section 4.2.3).
    if asked < 1 or asked != int(asked):
        raise BadRequest("page.limit: expected a whole number from 1 on")
    return min(int(asked), MAX_LIMIT)


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


_NOT_OURS: Final = "page.token: is not one of this query"

_encode: Final = msgspec.json.Encoder(order="sorted").encode


def query_digest(asker: str, kind: str, *parts: Any) -> bytes:
    """What binds a token to a query: who asked, and everything that was asked but the page."""
    return hashlib.sha256(_encode([asker, kind, *parts])).digest()
