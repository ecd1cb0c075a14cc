"""The first packet: what is admitted, what is refused, and what must be negotiated."""

import struct

import pytest

from chartgate.pgwire.backend import NegotiateProtocolVersion
from chartgate.pgwire.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    StartupReader,
)
from chartgate.pgwire.violation import ProtocolViolation, StartupRefused

V3_0, V3_2 = 0x30000, 0x30002


def packet(body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 4) + body


def startup(*words: bytes, version: int = V3_0) -> bytes:
    return packet(struct.pack(">I", version) + b"".join(word + b"\0" for word in words) + b"\0")


def read(data: bytes):
    reader = StartupReader()
    reader.feed(data)
    return reader.next()


def test_a_startup_message_names_user_database_and_settings():
    message = read(startup(b"user", b"ada", b"application_name", b"psql"))
    assert message == StartupMessage(V3_0, {"user": "ada", "application_name": "psql"})
    assert (message.user, message.database) == ("ada", "ada")
    assert message.negotiation() is None
    assert read(startup(b"user", b"ada", b"database", b"h")).database == "h"


def test_a_startup_message_may_come_byte_by_byte():
    data = startup(b"user", b"ada") + b"rest"
    reader = StartupReader()
    for byte in data[: len(data) - 5]:
        reader.feed(bytes((byte,)))
        assert reader.next() is None
    reader.feed(data[-5:])
    assert reader.next().user == "ada"
    assert reader.rest() == b"rest"
    assert reader.rest() == b""


def test_every_first_packet_encodes_back_to_itself():
    for original in (
        SSLRequest(),
        GSSENCRequest(),
        CancelRequest(7, b"abcd"),
        CancelRequest(2**32 - 1, b"k" * 256),
        StartupMessage(V3_2, {"user": "ada", "options": "-c a=b"}),
    ):
        assert read(bytes(original)) == original


@pytest.mark.parametrize("version", [V3_0, 0x30001, V3_2])
def test_a_version_up_to_3_2_needs_no_negotiation(version):
    message = read(startup(b"user", b"ada", version=version))
    assert not message.is_negotiation_due
    assert message.agreed_protocol == version


def test_a_newer_minor_version_and_unknown_options_are_negotiated():
    message = read(startup(b"user", b"a", b"_pq_.new", b"1", version=0x3270F))
    assert message.negotiation() == NegotiateProtocolVersion(V3_2, ("_pq_.new",))
    assert message.parameters == {"user": "a"}
    older = read(startup(b"user", b"a", b"_pq_.new", b"1"))
    assert older.negotiation() == NegotiateProtocolVersion(V3_0, ("_pq_.new",))


@pytest.mark.parametrize("value", [b"true", b"database", b"off", b""])
def test_replication_is_refused_by_name(value):
    with pytest.raises(StartupRefused, match="replication"):
        read(startup(b"user", b"ada", b"replication", value))


@pytest.mark.parametrize("words", [(), (b"database", b"h"), (b"user", b"")])
def test_a_startup_message_without_a_user_is_refused(words):
    with pytest.raises(StartupRefused, match="no user"):
        read(startup(*words))


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", 7),
        struct.pack(">I", 10_001),
        b"\x16\x03\x01\x02",  # a TLS handshake without SSLRequest
        b"GET / HTTP/1.1\r\n",
        packet(struct.pack(">I", 0x20000)),
        packet(struct.pack(">I", 0x40000)),
        packet(struct.pack(">I", 80877103) + b"x"),
        packet(struct.pack(">I", 80877104) + b"x"),
        packet(struct.pack(">II", 80877102, 1) + b"abc"),
        packet(struct.pack(">II", 80877102, 1) + b"a" * 257),
        packet(struct.pack(">I", V3_0) + b"user\0ada\0"),
        packet(struct.pack(">I", V3_0) + b"user\0ada\0\0more"),
        packet(struct.pack(">I", V3_0) + b"user\0ada"),
        startup(b"user", b"\xff\xfe"),
        startup(b"user", b"ada", b"user", b"eve"),
        startup(b"user", b"ada", b"_pq_.a", b"", b"_pq_.a", b""),
    ],
)
def test_a_malformed_first_packet_is_a_violation(data):
    with pytest.raises(ProtocolViolation):
        read(data)


def test_bytes_after_an_encryption_request_end_the_session():
    with pytest.raises(ProtocolViolation, match="unencrypted"):
        read(bytes(SSLRequest()) + startup(b"user", b"ada"))


def test_encryption_is_asked_for_once_per_kind():
    reader = StartupReader()
    reader.feed(bytes(GSSENCRequest()))
    assert reader.next() == GSSENCRequest()
    reader.feed(bytes(SSLRequest()))
    assert reader.next() == SSLRequest()
    reader.feed(bytes(SSLRequest()))
    with pytest.raises(ProtocolViolation, match="twice"):
        reader.next()


def test_there_is_no_second_startup_message():
    reader = StartupReader()
    reader.feed(startup(b"user", b"ada") * 2)
    assert reader.next().user == "ada"
    with pytest.raises(ProtocolViolation, match="second"):
        reader.next()
