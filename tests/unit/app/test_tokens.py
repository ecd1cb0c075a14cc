"""Patient tokens: keyed, one spelling per triple, a key a year."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartgate.app.tokens import NoTokenKey, PatientTokens

KEYS = {2025: b"\x01" * 32, 2026: b"\x02" * 32}
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


def test_a_token_is_half_of_the_hmac_of_the_length_prefixed_parts() -> None:
    message = b"\x00\x00\x00\x03mrn\x00\x00\x00\x08hospital\x00\x00\x00\x0712-3456"
    expected = hmac.new(KEYS[2026], message, hashlib.sha256).hexdigest()[:32]
    assert PatientTokens(KEYS, "hospital").token("mrn", "12-3456", year=2026) == expected


@given(TEXT, TEXT, TEXT, TEXT, TEXT, TEXT)
def test_two_different_patients_never_share_a_token(
    domain: str, issuer: str, value: str, domain2: str, issuer2: str, value2: str
) -> None:
    same = PatientTokens(KEYS, issuer).token(domain, value, year=2026) == PatientTokens(
        KEYS, issuer2
    ).token(domain2, value2, year=2026)
    assert same == ((domain, issuer, value) == (domain2, issuer2, value2))


def test_moving_a_character_from_issuer_to_value_changes_the_token() -> None:
    one = PatientTokens(KEYS, "ab").token("patient", "c", year=2026)
    other = PatientTokens(KEYS, "a").token("patient", "bc", year=2026)
    assert one != other


def test_a_search_looks_for_the_token_of_every_year_that_has_a_key() -> None:
    tokens = PatientTokens(KEYS, "hospital")
    assert tokens.all_years("patient", "7") == {
        tokens.token("patient", "7", year=2025),
        tokens.token("patient", "7", year=2026),
    }


def test_without_a_key_for_the_year_there_is_no_token() -> None:
    with pytest.raises(NoTokenKey, match="2027"):
        PatientTokens(KEYS, "hospital").token("patient", "7", year=2027)


def test_a_short_key_is_refused_and_the_value_is_not_in_the_message() -> None:
    with pytest.raises(NoTokenKey) as caught:
        PatientTokens({2026: b"short"}, "hospital").token("patient", "12-3456", year=2026)
    assert "12-3456" not in str(caught.value)
