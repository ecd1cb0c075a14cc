"""Equality and the texts of the extension types, edge by edge."""

import pytest

from chartgate.cedar.calls import call
from chartgate.cedar.errors import EvaluationError
from chartgate.cedar.extensions import (
    DAY,
    days_from_civil,
    parse_datetime,
    parse_decimal,
    parse_duration,
    parse_ip,
)
from chartgate.cedar.values import (
    CedarSet,
    DateTime,
    Decimal,
    Duration,
    IpAddr,
    RecordValue,
    equal,
    type_name,
)
from chartgate.model.principal import EntityUid


def test_true_is_not_one_at_any_depth() -> None:
    assert not equal(True, 1)
    assert not equal(False, 0)
    assert not equal(CedarSet.of([True]), CedarSet.of([1]))
    assert not equal(RecordValue({"a": True}), RecordValue({"a": 1}))
    assert 1 not in CedarSet.of([True])


def test_sets_have_no_order_and_no_duplicates() -> None:
    assert len(CedarSet.of([1, 1, True, "1"])) == 3
    assert CedarSet.of([1, 2]) == CedarSet.of([2, 1, 2])
    assert hash(CedarSet.of([1, 2])) == hash(CedarSet.of([2, 1]))
    assert CedarSet.of([CedarSet.of([1])]) == CedarSet.of([CedarSet.of([1, 1])])
    assert CedarSet.of([]) != ()
    assert repr(CedarSet.of([1])) == "CedarSet.of([1])"


def test_records_compare_deeply_and_cannot_be_confused_with_entities() -> None:
    record = RecordValue({"type": "User", "id": "a"})
    assert record == RecordValue([("id", "a"), ("type", "User")])
    assert hash(record) == hash(RecordValue({"id": "a", "type": "User"}))
    assert not equal(record, EntityUid("User", "a"))
    assert record != 1
    assert len(record) == 2
    assert repr(RecordValue({"a": 1})) == "RecordValue({'a': 1})"


def test_extension_values_of_equal_numbers_and_different_types_differ() -> None:
    assert not equal(Decimal(1), 1)
    assert not equal(DateTime(1), Duration(1))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (True, "Bool"),
        (1, "Long"),
        ("", "String"),
        (EntityUid("User", "a"), "entity"),
        (CedarSet.of([]), "Set"),
        (RecordValue(), "Record"),
        (Decimal(0), "decimal"),
        (IpAddr(4, 0, 32), "ipaddr"),
        (DateTime(0), "datetime"),
        (Duration(0), "duration"),
    ],
)
def test_each_value_names_its_type(value: object, name: str) -> None:
    assert type_name(value) == name  # type: ignore[arg-type]


def test_what_is_no_value_has_no_type() -> None:
    with pytest.raises(TypeError):
        type_name(1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("1.0", 10_000),
        ("1.5000", 15_000),
        ("-0.0", 0),
        ("-0.0001", -1),
        ("01.0", 10_000),
        ("922337203685477.5807", 2**63 - 1),
        ("-922337203685477.5808", -(2**63)),
        ("0" * 5000 + "1.0", 10_000),
    ],
)
def test_decimals_are_ten_thousandths_in_64_bits(text: str, units: int) -> None:
    assert parse_decimal(text) == Decimal(units)


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.", ".1", "+1.0", "1.12345", "1.0 ", "1.0\n", "١.0", "922337203685477.5808",
     "-922337203685477.5809", "9" * 5000 + ".0", "1e1", "1_0.0"],
)  # fmt: skip
def test_other_texts_are_no_decimals(text: str) -> None:
    assert parse_decimal(text) is None


def test_an_address_is_a_range_of_its_own() -> None:
    assert parse_ip("10.0.0.1") == parse_ip("10.0.0.1/32") == IpAddr(4, 0x0A000001, 32)
    assert parse_ip("::1") == IpAddr(6, 1, 128)
    assert parse_ip("abcd:ef01:2345:6789:abcd:ef01:2345:6789/128") is not None


@pytest.mark.parametrize(
    "text",
    ["", "/", "1.1.1", "01.1.1.1", "256.1.1.1", "1.1.1.1/", "1.1.1.1/33", "1.1.1.1/08", "1.1.1.1/+1",
     "1.1.1.1/1/1", "1.1.1.1/٣", "::/129", "::ffff:1.2.3.4", "fe80::1%eth0", "1::2::3", ":::",
     " 1.1.1.1", "1.1.1.1\n", "abcd:ef01:2345:6789:abcd:ef01:2345:6789/0128", "é" * 22],
)  # fmt: skip
def test_other_texts_are_no_addresses(text: str) -> None:
    assert parse_ip(text) is None


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.0.0.0/8", "10.0.0.0/8", True),
        ("10.0.0.0/7", "10.0.0.0/8", False),
        ("10.0.0.0/8", "10.0.0.0/9", False),
        ("::1", "0.0.0.0/0", False),
        ("ff00::/9", "ff00::/8", True),
    ],
)
def test_in_range_is_containment_of_ranges(inner: str, outer: str, expected: bool) -> None:
    assert call("isInRange", [parse_ip(inner), parse_ip(outer)]) is expected  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("text", "loopback", "multicast"),
    [
        ("127.0.0.1", True, False),
        ("127.0.0.0/8", True, False),
        ("127.0.0.0/7", False, False),
        ("::1", True, False),
        ("::1/127", False, False),
        ("224.0.0.0/4", False, True),
        ("224.0.0.0/3", False, False),
        ("ff00::/8", False, True),
        ("ff00::/7", False, False),
    ],
)
def test_loopback_and_multicast_hold_only_for_whole_ranges(
    text: str, loopback: bool, multicast: bool
) -> None:
    ip = parse_ip(text)
    assert ip is not None
    assert call("isLoopback", [ip]) is loopback
    assert call("isMulticast", [ip]) is multicast


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01", 0),
        ("2026-11-22", 1_795_305_600_000),
        ("2024-02-29T12:34:56.789Z", 1_709_210_096_789),
        ("1969-12-31T23:59:59Z", -1_000),
        ("1970-01-01T01:30:00+0130", 0),
        ("1969-12-31T22:30:00.000-0130", 0),
        ("0000-01-01", -62_167_219_200_000),
        ("0000-02-29", -62_162_121_600_000),
        ("9999-12-31T23:59:59.999-2359", 253_402_387_139_999),
    ],
)
def test_the_five_forms_of_a_datetime(text: str, ms: int) -> None:
    assert parse_datetime(text) == DateTime(ms)


@pytest.mark.parametrize(
    "text",
    ["", "2024-1-1", "2023-02-29", "1900-02-29", "2024-04-31", "2024-13-01", "2024-00-01", "2024-01-00",
     "10000-01-01", "-2024-01-01", "2024-01-01T", "2024-01-01T00:00:00", "2024-01-01T00:00:00.123",
     "2024-01-01T00:00:00.1Z", "2024-01-01T24:00:00Z", "2024-01-01T00:60:00Z", "2024-01-01T00:00:60Z",
     "2024-01-01T00:00:00+2400", "2024-01-01T00:00:00+0060", "2024-01-01T00:00:00+00:00",
     "2024-01-01t00:00:00z", "2024-01-01\n", "٢٠٢٤-01-01"],
)  # fmt: skip
def test_other_texts_are_no_datetimes(text: str) -> None:
    assert parse_datetime(text) is None


def test_the_calendar_is_gregorian_in_every_year() -> None:
    assert days_from_civil(1970, 1, 1) == 0
    assert days_from_civil(2000, 3, 1) - days_from_civil(2000, 2, 28) == 2
    assert days_from_civil(1900, 3, 1) - days_from_civil(1900, 2, 28) == 1
    assert days_from_civil(2400, 1, 1) - days_from_civil(2000, 1, 1) == 146_097


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1d2h3m4s5ms", 93_784_005),
        ("-1h", -3_600_000),
        ("1m1ms", 60_001),
        ("5ms", 5),
        ("-0ms", 0),
        ("00001d", DAY),
        ("106751991167d7h12m55s807ms", 2**63 - 1),
        ("-9223372036854775808ms", -(2**63)),
        ("0" * 5000 + "1s", 1000),
    ],
)
def test_durations_are_milliseconds_in_64_bits(text: str, ms: int) -> None:
    assert parse_duration(text) == Duration(ms)


@pytest.mark.parametrize(
    "text",
    ["", "-", "1", "d", "1D", "+1d", "1.5h", "1h1d", "1ms1s", "1d1d", "1d 1h", "1d-1h", "1s\n", "١d",
     "9223372036854775808ms", "-9223372036854775809ms", "106751991167d7h12m55s808ms", "9" * 5000 + "d"],
)  # fmt: skip
def test_other_texts_are_no_durations(text: str) -> None:
    assert parse_duration(text) is None


@pytest.mark.parametrize(
    ("method", "ms", "expected"),
    [
        ("toMilliseconds", -1, -1),
        ("toSeconds", -1_999, -1),
        ("toMinutes", 119_999, 1),
        ("toHours", -3_600_000, -1),
        ("toDays", -86_399_999, 0),
    ],
)
def test_durations_truncate_toward_zero(method: str, ms: int, expected: int) -> None:
    assert call(method, [Duration(ms)]) == expected


def test_a_date_floors_and_its_time_is_the_rest() -> None:
    assert call("toDate", [DateTime(-1)]) == DateTime(-DAY)
    assert call("toTime", [DateTime(-1)]) == Duration(DAY - 1)
    assert call("offset", [DateTime(5), Duration(-7)]) == DateTime(-2)
    assert call("durationSince", [DateTime(5), DateTime(7)]) == Duration(-2)


@pytest.mark.parametrize(
    ("fn", "arguments"),
    [
        ("offset", [DateTime(2**63 - 1), Duration(1)]),
        ("durationSince", [DateTime(-(2**63)), DateTime(1)]),
        ("toDate", [DateTime(-(2**63))]),
    ],
)
def test_times_beyond_64_bits_are_errors(fn: str, arguments: list) -> None:
    with pytest.raises(EvaluationError) as error:
        call(fn, arguments)
    assert error.value.kind == "overflow"


@pytest.mark.parametrize(
    ("fn", "arguments", "kind"),
    [
        ("lessThan", [Decimal(1), 1], "type"),
        ("ip", [1], "type"),
        ("ip", [], "arity"),
        ("ip", ["1.1.1.1", "1.1.1.1"], "arity"),
        ("decimal", ["1"], "extension"),
        ("nothing", [], "extension"),
    ],
)
def test_a_wrong_call_is_an_error_that_tells_no_value(fn: str, arguments: list, kind: str) -> None:
    with pytest.raises(EvaluationError) as error:
        call(fn, arguments)
    assert error.value.kind == kind
    assert "1.1.1.1" not in str(error.value)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        ("lessThan", [True, False, False]),
        ("lessThanOrEqual", [True, True, False]),
        ("greaterThan", [False, False, True]),
        ("greaterThanOrEqual", [False, True, True]),
    ],
)
def test_decimals_compare_by_method(fn: str, expected: list[bool]) -> None:
    assert [call(fn, [Decimal(n), Decimal(2)]) for n in (1, 2, 3)] == expected


def test_addresses_know_their_version() -> None:
    assert call("isIpv4", [IpAddr(4, 0, 32)]) is True
    assert call("isIpv6", [IpAddr(4, 0, 32)]) is False
