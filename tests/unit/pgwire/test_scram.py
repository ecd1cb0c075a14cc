"""SCRAM-SHA-256: the RFC 7677 example, and every way a login must fail."""

import re
from base64 import b64decode, b64encode

import pytest

from chartgate.errors import Corrupt
from chartgate.pgwire.scram import (
    AuthenticationFailed,
    ScramClient,
    ScramServer,
    Verifier,
    mint_verifier,
    saslprep,
)
from chartgate.pgwire.violation import ProtocolViolation

SALT = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_NONCE = b"rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
VERIFIER = mint_verifier("pencil", salt=SALT)
MOCK = b"m" * 16


def server(verifier: str | None = VERIFIER, **options) -> ScramServer:
    return ScramServer(verifier, SERVER_NONCE, mock_salt=MOCK, **options)


def client(password: str = "pencil", **options) -> ScramClient:
    return ScramClient("user", password, CLIENT_NONCE, **options)


def test_the_example_of_rfc_7677_section_3():
    ours, theirs = client(), server()
    assert ours.initial() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    first = theirs.start(ours.initial())
    assert first == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    final = ours.respond(first)
    assert final == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    proof = theirs.finish(final)
    assert proof == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    ours.verify(proof)


def test_a_verifier_has_postgresql_notation_and_one_spelling():
    assert re.fullmatch(r"SCRAM-SHA-256\$4096:W22ZaJ0SNY7soEsUEjb6gQ==\$\S{44}:\S{44}", VERIFIER)
    assert str(Verifier.parse(VERIFIER)) == VERIFIER
    assert "W22Z" not in repr(Verifier.parse(VERIFIER))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "md5" + "0" * 32,
        VERIFIER + " ",
        VERIFIER.replace("4096", "04096"),
        VERIFIER.replace(":", ":!", 1),
        VERIFIER[:-4],
        VERIFIER.replace("gQ==", "gR=="),  # other bits in the padding: a second spelling
    ],
)
def test_a_verifier_that_is_not_ours_is_corrupt(text):
    with pytest.raises(Corrupt):
        server(text)


def fail(theirs: ScramServer, password: str) -> tuple[str, str, str]:
    ours = client(password)
    with pytest.raises(AuthenticationFailed) as caught:
        theirs.finish(ours.respond(theirs.start(ours.initial())))
    return str(caught.value), caught.value.code, caught.value.sqlstate


def test_an_unknown_user_and_a_wrong_password_fail_alike():
    wrong, unknown = fail(server(), "pen"), fail(server(None), "pencil")
    assert wrong == unknown == ("password authentication failed", "authentication_failed", "28P01")


def test_an_unknown_user_meets_the_same_salt_every_time():
    first = [server(None).start(client().initial()) for _ in range(2)]
    assert first[0] == first[1]
    assert b",s=" + b64encode(MOCK) + b",i=4096" in first[0]


def test_nobody_logs_in_with_the_mock_keys():
    # the mock's stored key is derived from the salt, which the attacker sees
    assert fail(server(None), "")


@pytest.mark.parametrize("flag", [b"n", b"y"])
def test_a_client_that_cannot_or_need_not_bind_is_admitted(flag):
    theirs, ours = server(), client()
    first = theirs.start(flag + ours.initial()[1:])
    final = ours.respond(first)
    if flag == b"y":
        # our client signs c=biws; the server must insist on the header it saw
        with pytest.raises(AuthenticationFailed):
            theirs.finish(final)
    else:
        assert theirs.finish(final).startswith(b"v=")


def test_a_client_whose_offer_was_taken_away_is_refused():
    with pytest.raises(AuthenticationFailed):
        server(offers_plus=True).start(b"y,,n=,r=abc")


@pytest.mark.parametrize(
    "initial",
    [
        b"",
        b"n",
        b"p=tls-unique,,n=,r=abc",
        b"x,,n=,r=abc",
        b"n,a=root,n=,r=abc",
        b"n,,m=ext,n=,r=abc",
        b"n,,n=a=b,r=abc",
        b"n,,n=\xff,r=abc",
        b"n,,n=",
        b"n,,n=,r=",
        b"n,,n=,r=a\x7fb",
        b"n,,n=,r=\xc3\xa4",
        b"n,,n=\0,r=abc",
    ],
)
def test_a_malformed_first_message_is_a_violation(initial):
    with pytest.raises(ProtocolViolation):
        server().start(initial)


def login(change) -> bytes:
    theirs, ours = server(), client()
    final = ours.respond(theirs.start(ours.initial()))
    return theirs.finish(change(final))


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda final: final.rpartition(b",p=")[0],
        lambda final: final[:-4],
        lambda final: final + b"!",
        lambda final: final + b",x=1",
        lambda final: b"p=" + final.rpartition(b",p=")[2],
    ],
)
def test_a_malformed_last_message_is_a_violation(change):
    with pytest.raises(ProtocolViolation):
        login(change)


@pytest.mark.parametrize(
    "change",
    [
        lambda final: final.replace(b"c=biws", b"c=eSws"),
        lambda final: final.replace(b"r=rO", b"r=rP"),
        lambda final: final.replace(b",r=", b",x=1,r="),
        lambda final: final.replace(b"p=dH", b"p=dX"),
        lambda final: final.replace(b",p=", b",x=1,p="),
    ],
)
def test_a_last_message_that_does_not_belong_fails(change):
    with pytest.raises(AuthenticationFailed):
        login(change)


def test_steps_come_once_and_in_order():
    with pytest.raises(ProtocolViolation):
        server().finish(b"c=biws,r=x,p=")
    theirs, ours = server(), client()
    first = theirs.start(ours.initial())
    with pytest.raises(ProtocolViolation):
        theirs.start(ours.initial())
    with pytest.raises(ProtocolViolation):
        ours.verify(b"v=")
    final = ours.respond(first)
    with pytest.raises(ProtocolViolation):
        ours.respond(first)
    theirs.finish(final)
    with pytest.raises(ProtocolViolation):
        theirs.finish(final)


@pytest.mark.parametrize("final", [b"", b"v=", b"e=other-error", b"v=" + b"A" * 43 + b"="])
def test_a_server_without_proof_is_not_our_server(final):
    ours, theirs = client(), server()
    ours.respond(theirs.start(ours.initial()))
    with pytest.raises(AuthenticationFailed, match="did not prove"):
        ours.verify(final)


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (b"", ProtocolViolation),
        (b"m=x,r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=4096", ProtocolViolation),
        (b"r=rOprNGfwEbeRWgbNEkqOx,s=A,i=4096", ProtocolViolation),
        (b"r=rOprNGfwEbeRWgbNEkqOx,s=,i=4096", ProtocolViolation),
        (b"r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=+4096", ProtocolViolation),
        (b"r=rOprNGfwEbeRWgbNEkqO,s=AAAA,i=4096", AuthenticationFailed),
        (b"r=other,s=AAAA,i=4096", AuthenticationFailed),
        (b"r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=1", AuthenticationFailed),
        (b"r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=999999999", AuthenticationFailed),
    ],
)
def test_a_challenge_that_is_weak_or_malformed_gets_no_proof(first, kind):
    with pytest.raises(kind):
        client().respond(first)


def test_a_name_is_escaped():
    initial = ScramClient("a=b,c", "x", b"abc").initial()
    assert initial == b"n,,n=a=3Db=2Cc,r=abc"
    assert server().start(initial)


@pytest.mark.parametrize("nonce", [b"", b"a,b", b"a b", b"\xff"])
def test_a_nonce_is_printable(nonce):
    with pytest.raises(ValueError, match="nonce"):
        ScramServer(None, nonce, mock_salt=MOCK)
    with pytest.raises(ValueError, match="nonce"):
        ScramClient("user", "x", nonce)


@pytest.mark.parametrize(
    ("given", "prepared"),
    [
        ("I\u00adX", "IX"),  # RFC 4013, 3: SOFT HYPHEN mapped to nothing
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("\u0007", "\u0007"),  # prohibited: used raw
        ("\u06271", "\u06271"),  # RFC 4013, 3: fails the bidirectional check
        ("\u0627\u0628", "\u0627\u0628"),
        ("\u00ad", "\u00ad"),  # nothing would be left
        ("\u00e4\u200e", "\u00e4\u200e"),
        ("\ud800", "\ud800"),
    ],
)
def test_saslprep_as_postgresql_applies_it(given, prepared):
    assert saslprep(given) == prepared
    assert mint_verifier(given, salt=SALT) == mint_verifier(prepared, salt=SALT)
