"""Pages of a search: where the next one begins, in a token that nobody else can write.

The rules kept (AuthZEN 1.0, "Pagination"): a token is opaque; with it a changed query or a changed
limit is refused; ``next_token`` is there on every page, and empty on the last. A page begins *after*
the last result of the one before, so a result that comes or goes between them shifts no other.

The token is the limit and that place, authenticated (HMAC-SHA-256) together with the digest of the
query and of who asked, and enciphered under its own authenticator (a synthetic IV, as in RFC 5297,
with HMAC-SHA-256 as the pseudo-random function): a page may end behind somebody whom its holder was
not told of, and that she is there is nothing for her to read (45 CFR 164.502(b)).
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
_VERSION: Final = b"\x02"
_MAC: Final = 16
_HEAD: Final = 5
_BLOCK: Final = 64
"""Texts are filled up to a multiple of it: their length is no sign of them either."""


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
        text = (page.after or "").encode()
        plain = _VERSION + page.limit.to_bytes(2) + len(text).to_bytes(2) + text
        plain += bytes(-len(plain) % _BLOCK)
        mac = self._mac(plain, digest)
        return _text(mac + self._masked(mac, plain))

    def _mac(self, signed: bytes, digest: bytes) -> bytes:
        return hmac.digest(self._key, b"chartgate page 2\n" + digest + signed, "sha256")[:_MAC]

    def _masked(self, mac: bytes, data: bytes) -> bytes:
        """The data, enciphered or deciphered: the stream is made of the authenticator."""
        stream = b"".join(
            hmac.digest(self._key, b"chartgate page mask\n" + mac + block.to_bytes(4), "sha256")
            for block in range(-(-len(data) // 32))
        )
        return bytes(one ^ other for one, other in zip(data, stream, strict=False))

    def _opened(self, token: str, digest: bytes) -> Page:
        if len(token) > MAX_TOKEN or not token.isascii():
            raise BadPage(_NOT_OURS)
        try:
            data = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (NotBase64, ValueError):
            raise BadPage(_NOT_OURS) from None
        if _text(data) != token:
            raise BadPage(_NOT_OURS)  # base64 has other spellings of the same bytes
        mac = data[:_MAC]
        plain = self._masked(mac, data[_MAC:])
        if not hmac.compare_digest(mac, self._mac(plain, digest)) or plain[:1] != _VERSION:
            raise BadPage(_NOT_OURS)
        size = int.from_bytes(plain[3:_HEAD])
        return Page(int.from_bytes(plain[1:3]), plain[_HEAD : _HEAD + size].decode())


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
