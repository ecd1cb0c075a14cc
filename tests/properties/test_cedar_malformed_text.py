"""Whatever the text: a policy set, or InvalidPolicies that begins with file and line."""

import re
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from chartgate.cedar.parse import InvalidPolicies, parse_policies, parse_schema

FRAGMENTS = (
    "permit", "forbid", "(", ")", "{", "}", "[", "]", "principal", "action", "resource", "context",
    "when", "unless", ";", ",", "==", "&&", "||", "!", "-", "1", "9223372036854775808", "true",
    '"', '"a"', '"\\q"', '"\\u{110000}"', "//", "\n", "\r", " ", "@id", '@id("a")', '@id("b")', "?principal",
    "User", "::", ".", "has", "like", "is", "in", "if", "then", "else", "ip", "foo", "\x00", "é",
    "\ud800", "entity", "type", "namespace", "action", "appliesTo", "Set", "<", ">", "enum", "=", "?", ":",
    "permit(principal, action, resource) when { true };", '@id("a") permit(principal, action, resource);',
)  # fmt: skip
SOUP = st.lists(st.sampled_from(FRAGMENTS), max_size=40).map(" ".join)
TEXTS = SOUP | st.text(max_size=80) | st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join)
PROBLEM = re.compile(r"f\.cedar:[1-9][0-9]*(:[1-9][0-9]*)?: .+")

GOOD = '@id("a")\npermit (\n  principal in Team::"x",\n  action,\n  resource\n) when {\n  resource has "é" && [1, 2].contains(context.n) // so\n};\n'


def problems(text: str, read: Callable[[str], object]) -> tuple[str, ...]:
    try:
        read(text)
    except InvalidPolicies as refused:
        return refused.problems or ("refused without a problem",)
    return ()


def checked(text: str, read: Callable[[str], object]) -> None:
    found = problems(text, read)
    assert all(PROBLEM.fullmatch(problem) for problem in found), found


def policies(text: str) -> object:
    return parse_policies({"f.cedar": text})


def schema(text: str) -> object:
    return parse_schema(text, "f.cedar")


@given(TEXTS)
def test_any_text_is_read_or_refused_with_file_and_line(text: str) -> None:
    checked(text, policies)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 5), st.sampled_from(FRAGMENTS))
def test_a_damaged_policy_is_read_or_refused_with_file_and_line(
    at: int, dropped: int, put: str
) -> None:
    checked(GOOD[:at] + put + GOOD[at + dropped :], policies)


@given(TEXTS)
def test_any_schema_text_is_read_or_refused_with_file_and_line(text: str) -> None:
    checked(text, schema)
