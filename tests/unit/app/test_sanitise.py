"""What a client hears of the source's errors: a code and our words, never a value."""

import pytest

from chartgate.app.sanitise import client_error, client_notice, sqlstate_of
from chartgate.pgwire.messages import decode_backend
from chartgate.pgwire.reports import ErrorResponse, NoticeResponse

SECRET = "Whitfield"


def report(sqlstate: str, message: str = f"it says {SECRET}", **more: str) -> ErrorResponse:
    return ErrorResponse({"S": "ERROR", "V": "ERROR", "C": sqlstate, "M": message, **more})


def heard(source: ErrorResponse) -> dict[str, str]:
    data = client_error(source, "event 7")
    body = decode_backend(data[0], data[5:])
    assert isinstance(body, ErrorResponse)
    return body.fields


@pytest.mark.parametrize(
    "sqlstate",
    ["22P02", "22007", "22012", "22XXX", "23505", "23514", "23XXX", "42703", "42P01", "42XXX",
     "P0001", "XX000", "0A000", "54001", "26000", "34000", "55000", "08P01", "25P02", "99999"],
)  # fmt: skip
def test_words_of_the_source_never_pass(sqlstate: str) -> None:
    fields = heard(
        report(sqlstate, D=SECRET, H=SECRET, W=SECRET, q=SECRET, t=SECRET, c=SECRET, n=SECRET)
    )
    assert set(fields) == {"S", "V", "C", "M"}
    assert fields["C"] == sqlstate
    assert fields["M"].endswith("(event 7)")
    assert SECRET not in fields["M"]


@pytest.mark.parametrize("sqlstate", ["57014", "40001", "40P01", "53300", "57P01", "25001"])
def test_conditions_of_the_session_keep_their_words(sqlstate: str) -> None:
    assert heard(report(sqlstate, "canceling statement due to user request"))["M"] == (
        "canceling statement due to user request (event 7)"
    )


def test_an_end_of_the_session_stays_one() -> None:
    source = ErrorResponse({"S": "FATAL", "V": "FATAL", "C": "57P01", "M": "terminating"})
    assert heard(source)["V"] == "FATAL"


def test_a_row_that_policy_refused_is_told_as_a_refusal() -> None:
    source = report(
        "22P02", 'invalid input syntax for type boolean: "row refused by policy 2026-11-22"'
    )
    assert sqlstate_of(source) == "42501"
    assert heard(source) == {
        "S": "ERROR",
        "V": "ERROR",
        "C": "42501",
        "M": "policy does not allow you to write this row (event 7)",
    }


def test_only_notices_about_the_transaction_pass_without_their_details() -> None:
    assert client_notice({"C": "00000", "M": SECRET}) == b""
    assert client_notice({"C": "01000", "M": SECRET}) == b""
    data = client_notice({"C": "25001", "M": "there is already a transaction", "D": SECRET})
    body = decode_backend(data[0], data[5:])
    assert isinstance(body, NoticeResponse)
    assert body.message == "there is already a transaction"
    assert SECRET not in str(body.fields)
