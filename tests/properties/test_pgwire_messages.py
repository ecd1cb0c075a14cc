"""Properties of the codec: what is encoded decodes to itself; noise is only ever a violation."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartgate.errors import ChartgateError
from chartgate.pgwire import messages as m
from chartgate.pgwire.frames import Frame, FrameReader, split
from chartgate.pgwire.rows import strip_row_description, strip_rows, strip_run, strip_trailing
from chartgate.pgwire.startup import StartupReader
from chartgate.pgwire.values import text_of
from chartgate.pgwire.violation import ProtocolViolation

text = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
name = text.filter(bool)
data = st.binary(max_size=20)
value = st.none() | data
u32 = st.integers(0, 2**32 - 1)
i16 = st.integers(-(2**15), 2**15 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)
code = st.sampled_from((0, 1))


def tuples(of, size=5):
    return st.lists(of, max_size=size).map(tuple)


@st.composite
def binds(draw):
    params = draw(tuples(value))
    count = draw(st.sampled_from((0, 1, len(params))))
    formats = tuple(draw(st.lists(code, min_size=count, max_size=count)))
    return m.Bind(draw(text), draw(text), formats, params, draw(tuples(code)))


target = st.sampled_from(("S", "P"))
frontend = st.one_of(
    st.builds(m.Query, text),
    st.builds(m.Parse, text, text, tuples(u32)),
    binds(),
    st.builds(m.Describe, target, text),
    st.builds(m.Execute, text, i32),
    st.builds(m.Close, target, text),
    st.sampled_from((m.Sync(), m.Flush(), m.Terminate(), m.CopyDone())),
    st.builds(m.AuthenticationResponse, data),
    st.builds(m.CopyData, data),
    st.builds(m.CopyFail, text),
    st.builds(m.FunctionCall, data),
)
report = st.dictionaries(st.sampled_from("SVCMDHPpqWstcdnFLR"), text)
field = st.builds(m.Field, text, u32, i16, u32, i16, i32, code)
backend = st.one_of(
    st.sampled_from((m.AuthenticationOk(), m.AuthenticationCleartext())),
    st.builds(m.AuthenticationMD5, st.binary(min_size=4, max_size=4)),
    st.builds(m.AuthenticationSASL, st.lists(name, min_size=1, max_size=3).map(tuple)),
    st.builds(m.AuthenticationSASLContinue, data),
    st.builds(m.AuthenticationSASLFinal, data),
    st.builds(m.AuthenticationOther, st.integers(13, 2**32 - 1), data),
    st.builds(m.RowDescription, tuples(field)),
    st.builds(m.DataRow, tuples(value)),
    st.builds(m.CommandComplete, text),
    st.builds(m.ReadyForQuery, st.sampled_from("ITE")),
    st.builds(m.ErrorResponse, report),
    st.builds(m.NoticeResponse, report),
    st.builds(m.ParameterStatus, text, text),
    st.builds(m.BackendKeyData, u32, st.binary(min_size=4, max_size=256)),
    st.builds(m.ParameterDescription, tuples(u32)),
    st.sampled_from((m.ParseComplete(), m.BindComplete(), m.CloseComplete(), m.NoData())),
    st.sampled_from((m.PortalSuspended(), m.EmptyQueryResponse(), m.CopyDone())),
    st.builds(m.CopyInResponse, code, tuples(code)),
    st.builds(m.CopyOutResponse, code, tuples(code)),
    st.builds(m.CopyBothResponse, code, tuples(code)),
    st.builds(m.CopyData, data),
    st.builds(m.NotificationResponse, u32, text, text),
    st.builds(m.NegotiateProtocolVersion, u32, tuples(text)),
)


def frame_of(encoded: bytes) -> Frame:
    reader = FrameReader()
    reader.feed(encoded)
    (frame,) = reader.frames()
    assert reader.pending == 0
    return frame


@given(frontend)
def test_a_client_message_decodes_to_itself_and_back_to_its_bytes(message):
    decoded = m.decode_frontend(*frame_of(message.encode()))
    assert decoded == message
    assert bytes(decoded) == message.encode()


@given(backend)
def test_a_server_message_decodes_to_itself_and_back_to_its_bytes(message):
    decoded = m.decode_backend(*frame_of(message.encode()))
    assert decoded == message
    assert bytes(decoded) == message.encode()


@given(text, st.none() | data)
def test_the_parts_of_a_login_decode_to_themselves(mechanism, first):
    message = m.SASLInitialResponse(mechanism, first)
    assert m.SASLInitialResponse.parse(frame_of(bytes(message)).body) == message
    password = m.PasswordMessage(mechanism)
    assert m.PasswordMessage.parse(frame_of(bytes(password)).body) == password
    response = m.SASLResponse(first or b"")
    assert m.SASLResponse.parse(frame_of(bytes(response)).body) == response


@given(st.integers(0, 255), st.binary(max_size=60))
def test_noise_is_a_message_with_the_same_bytes_or_a_violation(kind, body):
    for decode in (m.decode_frontend, m.decode_backend):
        try:
            decoded = decode(kind, body)
        except ProtocolViolation:
            continue
        if not isinstance(decoded, m.ErrorResponse | m.NoticeResponse):
            assert frame_of(bytes(decoded)) == (kind, body)


@given(st.one_of(frontend, backend), st.data())
def test_a_damaged_message_is_a_message_or_a_violation(message, data_source):
    whole = bytearray(message.encode())
    kind = whole[0]
    body = whole[5:]
    if body:
        spot = data_source.draw(st.integers(0, len(body) - 1))
        body[spot] = data_source.draw(st.integers(0, 255))
    cut = bytes(body[: data_source.draw(st.integers(0, len(body)))])
    for decode in (m.decode_frontend, m.decode_backend):
        for damaged in (bytes(body), cut, bytes(body) + b"\0"):
            with suppress(ProtocolViolation):
                decode(kind, damaged)


@given(st.binary(max_size=60))
def test_noise_at_startup_is_a_packet_or_an_error_of_ours(noise):
    for packet in (noise, (len(noise) + 4).to_bytes(4, "big") + noise):
        reader = StartupReader()
        with suppress(ChartgateError):
            reader.feed(packet)
            reader.next()


@given(st.lists(st.one_of(frontend, backend), min_size=1, max_size=4))
def test_a_stream_split_at_any_byte_gives_the_same_messages(messages):
    encoded = [message.encode() for message in messages]
    stream = b"".join(encoded)
    for cut in range(len(stream) + 1):
        reader = FrameReader()
        reader.feed(stream[:cut])
        got = reader.take()
        reader.feed(stream[cut:])
        got += reader.take()
        assert [whole for _, whole in got] == encoded
        assert [kind for kind, _ in got] == [whole[0] for whole in encoded]


@given(st.lists(st.one_of(backend, st.builds(m.DataRow, tuples(value))), max_size=12), st.data())
def test_runs_hold_the_same_bytes_as_the_messages_one_by_one(messages, data_source):
    encoded = [message.encode() for message in messages]
    stream = b"".join(encoded)
    reader = FrameReader()
    runs = []
    while stream:
        size = data_source.draw(st.integers(1, len(stream)))
        reader.feed(stream[:size])
        stream = stream[size:]
        runs += reader.runs()
    assert [one for run in runs for one in split(run.data)] == encoded
    assert all(len(split(run.data)) == run.frames for run in runs)
    assert all(run.frames == 1 or run.kind in b"Dd" for run in runs)


@given(st.binary(max_size=80), st.integers(4, 100))
def test_noise_in_a_stream_is_frames_or_a_violation(noise, cap):
    for method in ("take", "runs", "frames"):
        reader = FrameReader(max_frame=cap)
        reader.feed(noise)
        try:
            getattr(reader, method)()
        except ProtocolViolation:
            with pytest.raises(ProtocolViolation):
                getattr(reader, method)()


@given(st.lists(tuples(value, 6), max_size=5), st.integers(0, 7))
def test_stripping_a_row_is_cutting_its_values(rows, keep):
    run = b"".join(m.DataRow(row).encode() for row in rows)
    bodies = [m.DataRow(row).encode()[5:] for row in rows]
    if any(len(row) < keep for row in rows):
        with pytest.raises(ProtocolViolation):
            strip_run(run, keep)
        return
    shown = b"".join(m.DataRow(row[:keep]).encode() for row in rows)
    hidden = [row[keep:] for row in rows]
    assert strip_run(run, keep) == (shown, hidden)
    assert strip_rows(bodies, keep) == (shown, hidden)
    for row, body in zip(rows, bodies, strict=True):
        assert strip_trailing(body, keep) == (m.DataRow(row[:keep]).encode(), row[keep:])


@given(tuples(value, 4), st.integers(0, 4), st.data())
def test_a_damaged_row_is_stripped_like_it_decodes_or_a_violation(row, keep, data_source):
    body = bytearray(m.DataRow(row).encode()[5:])
    spot = data_source.draw(st.integers(0, len(body) - 1))
    body[spot] = data_source.draw(st.integers(0, 255))
    damaged = bytes(body[: data_source.draw(st.integers(0, len(body)))])
    try:
        values = m.decode_backend(ord("D"), damaged).values
    except ProtocolViolation:
        with pytest.raises(ProtocolViolation):
            strip_trailing(damaged, keep)
        return
    if keep <= len(values):
        assert strip_trailing(damaged, keep)[1] == values[keep:]


@given(tuples(field), st.integers(0, 6))
def test_stripping_a_row_description_is_cutting_its_fields(fields, keep):
    body = m.RowDescription(fields).encode()[5:]
    if keep > len(fields):
        with pytest.raises(ProtocolViolation):
            strip_row_description(body, keep)
    else:
        assert strip_row_description(body, keep) == m.RowDescription(fields[:keep]).encode()


@given(
    st.sampled_from((0, 16, 19, 20, 21, 23, 25, 705, 1042, 1043, 1082, 2950, 600)),
    st.sampled_from((0, 1, 2)),
    st.binary(max_size=20),
)
def test_any_value_is_text_or_not_understood(oid, format_code, raw):
    assert isinstance(text_of(oid, format_code, raw), str | None)


@given(st.integers(-(2**63), 2**63 - 1))
def test_one_number_has_one_spelling_in_every_format(number):
    spellings = {
        text_of(20, 0, str(number).encode()),
        text_of(20, 0, f" {number:+d}\n".encode()),
        text_of(20, 1, number.to_bytes(8, "big", signed=True)),
    }
    assert spellings == {str(number)}


@given(report, text, text)
def test_own_errors_and_notices_always_encode(fields, message, detail):
    hostile = message + "\0" + "\ud800" + detail
    assert (
        m.decode_backend(*frame_of(m.error("42501", hostile, detail=hostile))).sqlstate == "42501"
    )
    assert m.decode_backend(*frame_of(m.notice(hostile, hint=hostile))).fields["C"] == "00000"
