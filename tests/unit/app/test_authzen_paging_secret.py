"""A page's token is no news: not of whom the page ended behind, nor how long her key is."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest

from chartgate.app.authzen_errors import BadPage
from chartgate.app.authzen_paging import Page, Pager, PageRequest, query_digest

DIGEST = query_digest("s_1", "ResourceSearch", {})


def text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def raw(token: str) -> bytes:
    return urlsafe_b64decode(token + "=" * (-len(token) % 4))


@pytest.mark.parametrize("after", ["4711", "Zo\u00eb.Hidden", "k" * 1_024])
def test_a_token_says_nothing_of_where_its_page_ended(after: str) -> None:
    pager = Pager(b"k" * 32)
    token = pager.token(Page(7, after), DIGEST)
    assert pager.page(PageRequest(token=token), DIGEST) == Page(7, after)
    assert after.encode() not in raw(token)
    other = pager.token(Page(7, after), query_digest("s_2", "ResourceSearch", {}))
    assert raw(other)[16:] != raw(token)[16:]


def test_keys_of_different_length_have_tokens_of_one_length() -> None:
    pager = Pager(b"k" * 32)
    assert len({len(pager.token(Page(7, after), DIGEST)) for after in ("", "1", "1" * 40)}) == 1


def test_no_bit_of_a_token_can_be_another() -> None:
    pager = Pager(b"k" * 32)
    data = raw(pager.token(Page(7, "4711"), DIGEST))
    for at in range(len(data) * 8):
        bent = bytearray(data)
        bent[at // 8] ^= 1 << at % 8
        with pytest.raises(BadPage):
            pager.page(PageRequest(token=text(bytes(bent))), DIGEST)
    for cut in range(1, len(data)):
        with pytest.raises(BadPage):
            pager.page(PageRequest(token=text(data[:cut])), DIGEST)
