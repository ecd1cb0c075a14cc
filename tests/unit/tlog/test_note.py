"""Notes and checkpoints: one spelling for each value, known keys must be right."""

from base64 import b64decode, b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chartgate.tlog.checkpoint import (
    Checkpoint,
    MalformedCheckpoint,
    checkpoint_signer,
    open_checkpoint,
    peek,
    sign_checkpoint,
)
from chartgate.tlog.note import (
    ED25519,
    ED25519_COSIGNATURE,
    BadSignature,
    MalformedNote,
    VerifierKey,
    add_cosignature,
    open_note,
    sign,
)
from chartgate.tlog.tree import EMPTY_ROOT

SECRET = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"\x08" * 32)
KEY = VerifierKey("log.example", ED25519, SECRET.public_key().public_bytes_raw())
OTHER_KEY = VerifierKey("other.example", ED25519, OTHER.public_key().public_bytes_raw())
WITNESS = VerifierKey("w.example", ED25519_COSIGNATURE, OTHER.public_key().public_bytes_raw())
NOTE = sign("text\n", KEY, SECRET.sign)


def test_an_unknown_signature_is_ignored_and_a_known_bad_one_rejects():
    both = NOTE + sign("text\n", OTHER_KEY, OTHER.sign).split("\n\n")[1]
    assert [v.key for v in open_note(both, [KEY]).signatures] == [KEY]
    assert [v.key for v in open_note(both, [OTHER_KEY]).signatures] == [OTHER_KEY]
    assert len(open_note(both, [KEY, OTHER_KEY]).signatures) == 2
    lying = NOTE + sign("text\n", OTHER_KEY, SECRET.sign).split("\n\n")[1]
    assert open_note(lying, [KEY]).text == "text\n"
    with pytest.raises(BadSignature, match=r"other\.example does not verify"):
        open_note(lying, [KEY, OTHER_KEY])


def test_a_note_without_a_known_signature_is_not_opened():
    with pytest.raises(BadSignature, match="no signature by a known key"):
        open_note(NOTE, [OTHER_KEY])


def test_the_text_may_hold_blank_lines():
    note = sign("a\n\nb\n\n", KEY, SECRET.sign)
    assert open_note(note, [KEY]).text == "a\n\nb\n\n"


LINE = NOTE.split("\n")[2]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "text\n",
        "text\n\n",
        NOTE[:-1],
        NOTE + "\n",
        NOTE.replace("— ", "- "),
        NOTE.replace("— ", "—  "),
        NOTE.replace("text", "te\rxt"),
        NOTE.replace("text", "te\x00xt"),
        NOTE.replace("text", "te\ud800xt"),
        NOTE.replace("log.example", "log+example"),
        NOTE.replace("log.example ", "log.example"),
        f"text\n\n{LINE}!\n",
        f"text\n\n{LINE.removesuffix('=')}\n",
        "text\n\n— log.example AAAA\n",
        f"text\n\n{LINE}\n" + f"{LINE}\n" * 64,
    ],
)
def test_other_spellings_are_refused(text):
    with pytest.raises((MalformedNote, BadSignature)):
        open_note(text, [KEY])


def test_base64_with_loose_bits_is_refused():
    assert LINE.endswith("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = LINE.rstrip("=")[-1]
    loose = LINE.rstrip("=")[:-1] + alphabet[alphabet.index(last) + 1] + "="
    with pytest.raises(MalformedNote, match="spelling"):
        open_note(f"text\n\n{loose}\n", [KEY])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log.example",
        str(KEY).upper(),
        str(KEY).replace(KEY.key_id.hex(), "00000000"),
        str(KEY) + " ",
        "log.example+00000000+",
        f"log.example+00000000+{b64encode(bytes(5)).decode()}",
        "log.example+00000000+" + b64encode(b"\x01" + bytes(5)).decode(),
        "a b" + str(KEY).removeprefix("log.example"),
    ],
)
def test_a_verifier_key_has_one_spelling(text):
    assert VerifierKey.parse(str(KEY)) == KEY
    with pytest.raises(MalformedNote):
        VerifierKey.parse(text)


def test_keys_sign_only_what_their_type_is_for():
    with pytest.raises(MalformedNote):
        sign("text\n", WITNESS, OTHER.sign)
    with pytest.raises(MalformedNote):
        sign("no newline", KEY, SECRET.sign)
    with pytest.raises(MalformedNote):
        add_cosignature(NOTE, KEY, SECRET.sign, time=1)


def test_a_cosignature_binds_its_time():
    note = add_cosignature(NOTE, WITNESS, OTHER.sign, time=5)
    assert [v.time for v in open_note(note, [KEY, WITNESS]).signatures] == [None, 5]
    head, line = note.removesuffix("\n").rsplit(" ", 1)
    raw = bytearray(b64decode(line))
    raw[11] = 6
    with pytest.raises(BadSignature):
        open_note(f"{head} {b64encode(raw).decode()}\n", [KEY, WITNESS])
    with pytest.raises(BadSignature, match="wrong length"):
        open_note(f"{head} {b64encode(raw[:-1]).decode()}\n", [KEY, WITNESS])


STATE = Checkpoint("log.example", 10, bytes(32))


@pytest.mark.parametrize(
    "text",
    [
        str(STATE).replace("\n10\n", "\n010\n"),
        str(STATE).replace("\n10\n", "\n+10\n"),
        str(STATE).replace("\n10\n", "\n1_0\n"),
        str(STATE).replace("\n10\n", "\n-1\n"),
        str(STATE).replace("\n10\n", "\n\n"),
        str(STATE).replace("\n10\n", "\n١٠\n"),
        str(STATE).replace("\n10\n", f"\n{2**64}\n"),
        str(STATE).replace("\n10\n", "\n" + "9" * 5000 + "\n"),
        str(STATE).replace("\n10\n", "\n0\n"),
        str(STATE) + "extension\n",
        str(STATE)[:-1],
        str(STATE).replace("AAA=", "AAB="),
        str(STATE).replace("AAA=", "A==="),
        f"log.example\n10\n{b64encode(bytes(31)).decode()}\n",
    ],
)
def test_a_checkpoint_has_one_spelling(text):
    assert Checkpoint.parse(str(STATE)) == STATE
    with pytest.raises(MalformedCheckpoint):
        Checkpoint.parse(text)


def test_the_empty_tree_has_one_checkpoint():
    assert Checkpoint.parse(str(Checkpoint("log.example", 0, EMPTY_ROOT))).size == 0


def test_a_log_that_signs_at_each_commit_signs_the_same_text():
    sign_at = checkpoint_signer(KEY, SECRET.sign)
    for size in (0, 1, 7, 2**64 - 1):
        root = bytes(range(32)) if size else EMPTY_ROOT
        state = Checkpoint(KEY.name, size, root)
        assert sign_at(size, root) == sign_checkpoint(state, KEY, SECRET.sign)


def test_a_checkpoint_is_signed_and_opened_by_the_key_of_its_log():
    text = sign_checkpoint(STATE, KEY, SECRET.sign)
    assert open_checkpoint(text, KEY) == peek(text) == STATE
    with pytest.raises(MalformedCheckpoint, match="named as its origin"):
        sign_checkpoint(STATE, OTHER_KEY, OTHER.sign)
    elsewhere = sign(str(Checkpoint("x.example", 1, bytes(32))), KEY, SECRET.sign)
    with pytest.raises(MalformedCheckpoint, match="another log"):
        open_checkpoint(elsewhere, KEY)
    witnessed = add_cosignature(
        sign(str(STATE), OTHER_KEY, OTHER.sign), WITNESS, OTHER.sign, time=1
    )
    with pytest.raises(BadSignature, match="log itself"):
        open_checkpoint(witnessed, KEY, [WITNESS])
    with pytest.raises(MalformedCheckpoint, match="blank line"):
        peek(str(STATE))
