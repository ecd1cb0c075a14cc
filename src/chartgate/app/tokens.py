"""Patients stand in the log as keyed tokens, never as identifiers.

``token = HMAC-SHA256(K_year, domain ‖ issuer ‖ value)[:16]``, each part preceded by its length as a
big-endian 32-bit number, so that no two triples have the same bytes. An unkeyed hash of a medical
record number falls to a list of all numbers in minutes; a key of 256 bits does not. A key lives for
a year of events: destroying it after retention makes that year's tokens name nobody, while every
proof over the log still verifies. A token is still derived from an identifier, so the log is
treated as PHI (45 CFR 164.514(c)(1)).
"""

import hmac
from collections.abc import Mapping

from chartgate.errors import LogUnavailable

PATIENT = "patient"
"""Domain of the patient key of the data map."""

IDENTIFIER = "mrn"
"""Domain of what people type: the medical record number."""

KEY_BYTES = 32
TOKEN_BYTES = 16


class NoTokenKey(LogUnavailable):
    """There is no key for the year of the event: it cannot be recorded, so nothing is released."""

    code = "no_token_key"


class PatientTokens:
    """Makes tokens. ``keys`` maps a calendar year (UTC) to its key and may grow while in use.

    ``issuer`` is who assigned the values, the name of the source: number 7 of one hospital is not
    number 7 of the next.
    """

    __slots__ = ("_issuer", "_keys")

    def __init__(self, keys: Mapping[int, bytes], issuer: str) -> None:
        self._keys = keys
        self._issuer = issuer

    def token(self, domain: str, value: str, *, year: int) -> str:
        """The token of ``value`` in events of ``year``: 32 lower-case hex digits."""
        try:
            key = self._keys[year]
        except KeyError:
            raise NoTokenKey(f"no token key for the year {year}") from None
        if len(key) != KEY_BYTES:
            raise NoTokenKey(f"the token key for the year {year} is not {KEY_BYTES} bytes long")
        message = b"".join(_prefixed(part) for part in (domain, self._issuer, value))
        return hmac.digest(key, message, "sha256")[:TOKEN_BYTES].hex()

    def all_years(self, domain: str, value: str) -> frozenset[str]:
        """The tokens of ``value`` in every year that still has a key: what a search looks for."""
        return frozenset(self.token(domain, value, year=year) for year in tuple(self._keys))


def _prefixed(part: str) -> bytes:
    data = part.encode()
    return len(data).to_bytes(4, "big") + data
