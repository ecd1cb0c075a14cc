"""Messages on the wire: fixed bytes, strictness, and what never shows."""

import pytest

from chartgate.pgwire import messages as m
from chartgate.pgwire.violation import ProtocolViolation

_BACKEND = (".backend", ".authentication")


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (m.Query("select 1"), b"Q\0\0\0\x0dselect 1\0"),
        (m.Parse("s", "x", (23,)), b"P\0\0\0\x0es\0x\0\0\1\0\0\0\x17"),
        (m.Bind("", "s", (1,), (b"ab", None), (0,)), b"B\0\0\0\x1b\0s\0\0\1\0\1\0\2\0\0\0\2ab\xff\xff\xff\xff\0\1\0\0"),
        (m.Describe("S", "s"), b"D\0\0\0\7Ss\0"),
        (m.Execute("", 5), b"E\0\0\0\x09\0\0\0\0\5"),
        (m.ReadyForQuery("T"), b"Z\0\0\0\5T"),
        (m.BackendKeyData(1, b"abcd"), b"K\0\0\0\x0c\0\0\0\1abcd"),
        (m.AuthenticationOk(), b"R\0\0\0\x08\0\0\0\0"),
        (m.AuthenticationCleartext(), b"R\0\0\0\x08\0\0\0\3"),
        (m.AuthenticationMD5(b"salt"), b"R\0\0\0\x0c\0\0\0\5salt"),
        (m.AuthenticationSASL(("A",)), b"R\0\0\0\x0b\0\0\0\x0aA\0\0"),
        (m.DataRow((b"1", None)), b"D\0\0\0\x0f\0\2\0\0\0\x011\xff\xff\xff\xff"),
        (m.NegotiateProtocolVersion(0x30002, ("x",)), b"v\0\0\0\x0e\0\3\0\2\0\0\0\1x\0"),
    ],
)  # fmt: skip
def test_messages_have_the_bytes_of_the_documentation(message, wire):
    assert bytes(message) == wire
    decode = m.decode_backend if type(message).__module__.endswith(_BACKEND) else m.decode_frontend
    assert decode(wire[0], wire[5:]) == message


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("Q", b"select 1\0; drop table x\0"),
        ("Q", b"select 1"),
        ("Q", b"\xff\0"),
        ("P", b"\0select \xc3\0\0\0"),
        ("P", b"\0x\0\0\2\0\0\0\1"),
        ("B", b"\0\0\0\2\0\0\0\0\0\1\xff\xff\xff\xff\0\0"),
        ("B", b"\0\0\0\1\0\2\0\0\0\0"),
        ("B", b"\0\0\0\0\0\1\xff\xff\xff\xfe\0\0"),
        ("D", b"Xs\0"),
        ("C", b"\0"),
        ("S", b"x"),
        ("p!", b""),
        ("@", b""),
    ],
)
def test_a_malformed_client_message_is_a_violation(kind, body):
    with pytest.raises(ProtocolViolation):
        m.decode_frontend(ord(kind[0]) if len(kind) == 1 else 0, body)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("Z", b"X"),
        ("K", b"\0\0\0\1abc"),
        ("K", b"\0\0\0\1" + b"a" * 257),
        ("R", b"\0\0\0\x0a\0"),
        ("R", b"\0\0\0\0x"),
        ("E", b"Mx\0My\0\0"),
        ("E", b"\x80x\0\0"),
        ("E", b"Mx\0"),
        ("H", b"\2\0\0"),
        ("T", b"\0\1x\0" + b"\0" * 17 + b"\2"),
        ("v", b"\0\3\0\0\xff\xff\xff\xff"),
        ("?", b""),
    ],
)
def test_a_malformed_server_message_is_a_violation(kind, body):
    with pytest.raises(ProtocolViolation):
        m.decode_backend(ord(kind), body)


@pytest.mark.parametrize(
    "message",
    [
        m.Query("a\0b"),
        m.Query("\ud800"),
        m.Describe("X", ""),
        m.Close("", ""),
        m.ReadyForQuery("?"),
        m.BackendKeyData(1, b""),
        m.BackendKeyData(-1, b"abcd"),
        m.ErrorResponse({"": "x"}),
        m.ErrorResponse({"\0": "x"}),
        m.Execute("", 2**31),
        m.Bind("", "", (), (None,) * 65_536),
    ],
)
def test_what_has_no_bytes_does_not_encode(message):
    with pytest.raises(ProtocolViolation):
        message.encode()


def test_an_error_of_our_own_has_the_fields_clients_read():
    report = m.decode_backend(ord("E"), m.error("42501", "no", detail="d", hint="h")[5:])
    assert report.fields == {
        "S": "ERROR",
        "V": "ERROR",
        "C": "42501",
        "M": "no",
        "D": "d",
        "H": "h",
    }
    assert (report.severity, report.sqlstate, report.message) == ("ERROR", "42501", "no")
    remark = m.decode_backend(ord("N"), m.notice("hi")[5:])
    assert (remark.message, remark.fields["S"]) == ("hi", "NOTICE")
    assert m.ErrorResponse({"S": "FATAL"}).severity == "FATAL"


def test_an_error_in_the_servers_locale_is_not_lost():
    report = m.decode_backend(ord("E"), b"SFATAL\0Mpass\xe9\0\0")
    assert report.message == "pass\ufffd"


def test_secrets_and_values_do_not_show():
    hidden = (
        m.PasswordMessage("hunter2"),
        m.SASLResponse(b"hunter2"),
        m.AuthenticationResponse(b"hunter2"),
        m.DataRow((b"hunter2",)),
        m.Bind("", "", (), (b"hunter2",)),
        m.CopyData(b"hunter2"),
        m.BackendKeyData(1, b"hunter2"),
    )
    assert all("hunter2" not in repr(message) for message in hidden)


def test_one_format_code_stands_for_all_parameters():
    assert m.Bind("", "", (), (b"", b"")).format_of(1) == 0
    assert m.Bind("", "", (1,), (b"", b"")).format_of(1) == 1
    assert m.Bind("", "", (1, 0), (b"", b"")).format_of(1) == 0
