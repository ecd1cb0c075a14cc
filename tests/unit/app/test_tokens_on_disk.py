"""Key files: made on demand, closed to others, never replaced."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chartgate.adapters.keys import KeyStore, TokenKeys, UnsafeKey


def test_a_year_gets_its_key_when_first_asked_for_and_keeps_it(tmp_path: Path) -> None:
    keys = TokenKeys(KeyStore(tmp_path / "keys"), create=True)
    first = keys[2026]
    assert len(first) == 32
    assert TokenKeys(KeyStore(tmp_path / "keys"), create=False)[2026] == first
    assert keys[2027] != first
    assert sorted(keys) == [2026, 2027]


def test_a_key_file_and_its_folder_are_closed_to_others(tmp_path: Path) -> None:
    TokenKeys(KeyStore(tmp_path / "keys"), create=True)[2026]
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert [p.name for p in (tmp_path / "keys").iterdir()] == ["token-2026.key"]
    assert (tmp_path / "keys" / "token-2026.key").stat().st_mode & 0o777 == 0o600


def test_a_search_never_makes_a_key(tmp_path: Path) -> None:
    keys = TokenKeys(KeyStore(tmp_path / "keys"), create=False)
    with pytest.raises(KeyError):
        keys[2026]
    assert 2026 not in TokenKeys(KeyStore(tmp_path / "keys"), create=True)
    assert list((tmp_path / "keys").iterdir()) == []


def test_a_key_that_others_can_read_is_refused_in_one_line(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys")
    store.token_key(2026, create=True)
    (tmp_path / "keys" / "token-2026.key").chmod(0o640)
    with pytest.raises(UnsafeKey, match=r"open to others \(mode 0640\): chmod 0600") as caught:
        store.token_key(2026, create=True)
    assert "\n" not in str(caught.value)


def test_an_open_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys").chmod(0o755)
    with pytest.raises(UnsafeKey, match="chmod 0700"):
        KeyStore(tmp_path / "keys")


def test_a_link_in_place_of_a_key_is_refused(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys")
    target = tmp_path / "elsewhere"
    target.write_bytes(b"x" * 32)
    os.symlink(target, tmp_path / "keys" / "token-2026.key")
    with pytest.raises(UnsafeKey):
        store.token_key(2026, create=True)


def test_a_truncated_key_is_refused(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys")
    store.create("token-2026.key", b"short")
    with pytest.raises(UnsafeKey, match="32 bytes"):
        store.token_key(2026, create=False)


def test_everyone_who_creates_a_key_at_once_ends_up_with_the_same(tmp_path: Path) -> None:
    def make(_: int) -> bytes | None:
        return KeyStore(tmp_path / "keys").token_key(2026, create=True)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make, range(16)))) == 1
