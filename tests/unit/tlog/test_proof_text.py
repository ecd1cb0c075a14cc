"""A proof as text (c2sp.org/tlog-proof@v1): what is written is read back, everything else refused."""

from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chartgate.errors import Corrupt
from chartgate.tlog.checkpoint import Checkpoint, sign_checkpoint
from chartgate.tlog.note import ED25519, BadSignature, VerifierKey
from chartgate.tlog.proof import inclusion_proof, subtrees_of
from chartgate.tlog.proof_text import HEADER, MAX_HASHES, MAX_TEXT, LogProof, MalformedProof
from chartgate.tlog.tree import leaf_hash, tree_root

NAME = "test.example/log"
ENTRIES = tuple(f"entry {number}".encode() for number in range(11))
HASH = b64encode(bytes(32)).decode()
SECRET = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
OTHER_SECRET = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)


def key_of(secret: Ed25519PrivateKey, name: str = NAME) -> VerifierKey:
    return VerifierKey(name, ED25519, secret.public_key().public_bytes_raw())


def proof(
    index: int,
    size: int = len(ENTRIES),
    *,
    secret: Ed25519PrivateKey = SECRET,
    name: str = NAME,
) -> LogProof:
    leaves = [leaf_hash(entry) for entry in ENTRIES[:size]]
    checkpoint = sign_checkpoint(
        Checkpoint(name, size, tree_root(leaves)), key_of(secret, name), secret.sign
    )
    return LogProof(index, inclusion_proof(index, size, subtrees_of(leaves)), checkpoint)


def text(index: str = "index 0", *hashes: str, header: str = HEADER) -> str:
    return "\n".join((header, index, *hashes)) + "\n\na checkpoint\n"


@pytest.mark.parametrize("size", range(1, len(ENTRIES) + 1))
def test_every_proof_is_read_back_as_it_was_written_and_holds(size: int) -> None:
    for index in range(size):
        written = proof(index, size)
        read = LogProof.parse(str(written))
        assert read == written
        assert str(read) == str(written)
        assert read.verify(ENTRIES[index], [key_of(SECRET)]).size == size


def test_the_text_is_header_index_hashes_an_empty_line_and_the_checkpoint() -> None:
    written = proof(2, 3)
    head, _, checkpoint = str(written).partition("\n\n")
    lines = head.split("\n")
    assert lines[:2] == ["c2sp.org/tlog-proof@v1", "index 2"]
    assert lines[2:] == [b64encode(one).decode() for one in written.hashes]
    assert checkpoint == written.checkpoint


def test_a_log_of_one_entry_needs_no_hashes() -> None:
    assert proof(0, 1).hashes == ()
    assert str(proof(0, 1)).startswith(f"{HEADER}\nindex 0\n\n{NAME}\n1\n")


@pytest.mark.parametrize(
    ("malformed", "said"),
    [
        ("", "begins with its format"),
        (HEADER, "begins with its format"),
        (f"{HEADER}\n\nindex 0\n", "begins with its format"),
        (f"{HEADER}\nindex 0\n{HASH}\n", "begins with its format"),
        (text(header="c2sp.org/tlog-proof@v2"), "begins with its format"),
        (text(header=" " + HEADER), "begins with its format"),
        (text(header=HEADER + "\r"), "begins with its format"),
        ("\n" + text(), "begins with its format"),
        (text("0"), "names an index"),
        (text("index"), "names an index"),
        (text("index "), "names an index"),
        (text("Index 0"), "names an index"),
        (text("index -1"), "names an index"),
        (text("index +1"), "names an index"),
        (text("index 1.0"), "names an index"),
        (text("index 1_0"), "names an index"),
        (text("index 1 "), "names an index"),
        (text("index  1"), "names an index"),
        (text("index 0x1"), "names an index"),
        (text("index \u0661"), "names an index"),
        (text("index \u00b2"), "names an index"),
        (text("index 1\r"), "names an index"),
        (text("index 01"), "another spelling"),
        (text("index 00"), "another spelling"),
        (text("index " + "9" * 21), "more hashes than any log has"),
        (text("index 0", *[HASH] * (MAX_HASHES + 1)), "more hashes than any log has"),
        (text("index 0", "not base64!"), "is base64"),
        (text("index 0", HASH[:-1]), "is base64"),
        (text("index 0", HASH + "="), "base64|another spelling"),
        (text("index 0", " " + HASH), "is base64"),
        (text("index 0", HASH + "\r"), "is base64"),
        (text("index 0", "\u00e9" * 44), "is base64"),
        (text("index 0", "AAAA"), "32 bytes"),
        (text("index 0", b64encode(bytes(33)).decode()), "32 bytes"),
        (text("index 0", b64encode(bytes(31)).decode()), "32 bytes"),
        (text("index 0", HASH[:-2] + "B="), "another spelling"),
        (text("index 0", HASH, "index 1"), "is base64"),
        (text() + "x" * MAX_TEXT, "at most 64 KiB"),
    ],
)
def test_what_is_not_in_the_one_spelling_is_refused(malformed: str, said: str) -> None:
    with pytest.raises(MalformedProof, match=said):
        LogProof.parse(malformed)


def test_as_many_hashes_as_a_log_can_have_are_read() -> None:
    assert len(LogProof.parse(text("index 0", *[HASH] * MAX_HASHES)).hashes) == MAX_HASHES
    assert LogProof.parse(text("index " + "9" * 20)).index == int("9" * 20)


def test_reading_alone_verifies_nothing() -> None:
    read = LogProof.parse(text("index 5", HASH))
    assert (read.index, read.hashes, read.checkpoint) == (5, (bytes(32),), "a checkpoint\n")
    with pytest.raises(Corrupt):
        read.verify(ENTRIES[5], [key_of(SECRET)])


def test_another_entry_another_index_and_another_hash_do_not_hold() -> None:
    good = proof(3)
    keys = [key_of(SECRET)]
    with pytest.raises(Corrupt):
        good.verify(ENTRIES[4], keys)
    with pytest.raises(Corrupt):
        LogProof(4, good.hashes, good.checkpoint).verify(ENTRIES[3], keys)
    with pytest.raises(Corrupt):
        LogProof(3, good.hashes[:-1], good.checkpoint).verify(ENTRIES[3], keys)
    with pytest.raises(Corrupt):
        LogProof(3, (*good.hashes, bytes(32)), good.checkpoint).verify(ENTRIES[3], keys)
    with pytest.raises(Corrupt):
        LogProof(11, good.hashes, good.checkpoint).verify(ENTRIES[3], keys)


def test_a_checkpoint_of_another_size_is_not_the_one_that_was_proved() -> None:
    smaller = proof(3, 7).checkpoint
    with pytest.raises(Corrupt):
        LogProof(3, proof(3).hashes, smaller).verify(ENTRIES[3], [key_of(SECRET)])


def test_a_log_that_nobody_here_trusts_proves_nothing() -> None:
    with pytest.raises(BadSignature, match="not trusted here"):
        proof(3).verify(ENTRIES[3], [])
    with pytest.raises(BadSignature, match="not trusted here"):
        proof(3, name="other.example/log").verify(ENTRIES[3], [key_of(SECRET)])


def test_a_log_that_took_a_trusted_name_proves_nothing() -> None:
    with pytest.raises(Corrupt):
        proof(3, secret=OTHER_SECRET).verify(ENTRIES[3], [key_of(SECRET)])


def test_of_several_keys_under_one_name_each_is_tried() -> None:
    both = [key_of(SECRET), key_of(OTHER_SECRET)]
    for secret in (SECRET, OTHER_SECRET):
        for keys in (both, both[::-1]):
            assert proof(3, secret=secret).verify(ENTRIES[3], keys).origin == NAME


def test_a_signed_checkpoint_that_was_edited_is_refused() -> None:
    good = proof(3)
    for edited in (
        good.checkpoint.replace("\n11\n", "\n12\n"),
        good.checkpoint.replace("\n\n", "\n"),
        good.checkpoint[:-2],
        "",
    ):
        assert edited != good.checkpoint
        with pytest.raises(Corrupt):
            LogProof(3, good.hashes, edited).verify(ENTRIES[3], [key_of(SECRET)])
