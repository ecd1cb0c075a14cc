"""What a scenario says of a session is read strictly, and written as it is read."""

import tomllib
from typing import Any

import pytest

from chartgate.app.scenario_context import (
    InvalidScenario,
    circumstances_text,
    read_circumstances,
)
from chartgate.cedar.values import DateTime, Decimal, IpAddr, RecordValue, Value
from chartgate.model.principal import EntityUid

EVERYTHING = (
    '{ acr = 2, authenticated_at = 2026-11-22T08:00:00+00:00, ip = "10.1.0.0/16", '
    'device = "managed", session = "s \\"1\\"", recipient = "Mercy Heart Clinic" }'
)


def table(text: str) -> Any:
    return tomllib.loads(f"context = {text}")["context"]


def test_each_circumstance_has_its_own_type() -> None:
    said = read_circumstances("a", table(EVERYTHING))
    assert said["acr"] == 2
    assert said["authenticated_at"] == DateTime(1_795_334_400_000)
    assert said["ip"] == IpAddr(4, 10 << 24 | 1 << 16, 16)
    assert said["device"] == EntityUid("Device", "managed")
    assert said["session"] == 's "1"'


def test_what_is_written_reads_back_as_it_was() -> None:
    said = read_circumstances("a", table(EVERYTHING))
    assert circumstances_text(said) == EVERYTHING
    six = read_circumstances("a", {"ip": "2001:db8::1"})
    assert circumstances_text(six) == '{ ip = "2001:db8::1" }'


def test_nothing_is_said_unless_it_is_written() -> None:
    assert read_circumstances("a", None) == RecordValue()
    assert circumstances_text(RecordValue({"purpose": EntityUid("Purpose", "TREAT")})) == ""


@pytest.mark.parametrize(
    "value", [True, EntityUid("Device", "phone"), DateTime(1 << 62), Decimal(1)], ids=str
)
def test_what_a_scenario_cannot_say_is_not_said_otherwise(value: Value) -> None:
    assert circumstances_text(RecordValue({"session": value})) is None


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ([], "a: not a table"),
        ({"acrs": 2}, "a: unknown key acrs; known are acr, authenticated_at"),
        ({"purpose": "TREAT"}, "a: unknown key purpose"),
        ({"acr": "2"}, "a: acr is a whole number"),
        ({"acr": True}, "a: acr is a whole number"),
        (table("{ authenticated_at = 2026-11-22T08:00:00 }"), "a date and time with its zone"),
        ({"authenticated_at": "now"}, "a date and time with its zone"),
        ({"ip": "10.0.0.300"}, "a: ip is an address"),
        ({"recipient": 3}, "a: recipient is a text"),
        ({"device": "manged"}, "a: device is one of managed, registered, personal, shared"),
    ],
)
def test_a_word_that_is_not_known_is_a_fault_of_the_file(form: Any, words: str) -> None:
    with pytest.raises(InvalidScenario) as caught:
        read_circumstances("a", form)
    assert words in str(caught.value)
