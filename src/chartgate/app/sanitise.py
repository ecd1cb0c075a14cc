"""What a client hears of the source's errors and notices: the SQLSTATE and our own words.

The source's texts quote values ("invalid input syntax for type integer: …", "Key (mrn)=(…) already
exists"), and an error is a way to look at a hidden row. So the text is replaced, and details,
hints, positions and names are dropped; only conditions of the session itself keep their words.
"""

from typing import Final

from chartgate.pgwire.reports import ErrorResponse, error, notice

_HARMLESS_CLASSES: Final = frozenset({"08", "25", "26", "2D", "34", "3B", "40", "53", "55", "57"})
"""Connection, transaction, prepared statement, cursor, savepoint, rollback, resources, operator
intervention: conditions of the session, whose texts quote no data."""

_WORDS: Final = {
    "22001": "a value is too long for its type",
    "22003": "a number is out of range",
    "22007": "a date or time is not valid",
    "22008": "a date or time is out of range",
    "22012": "division by zero",
    "22023": "a parameter has a value that is not allowed",
    "22P02": "a value does not fit its type",
    "22P03": "a binary value does not fit its type",
    "23502": "a value that must be given is missing",
    "23503": "a referenced row does not exist, or is still referenced",
    "23505": "a value that must be unique exists already",
    "23514": "a check constraint does not hold",
    "42501": "not allowed by the source database",
    "42601": "syntax error",
    "42702": "a column name is ambiguous",
    "42703": "a column that the statement names does not exist",
    "42725": "a function call is ambiguous",
    "42803": "a column must be grouped or aggregated",
    "42804": "types do not match",
    "42883": "no such function or operator for these types",
    "42P01": "a relation that the statement names does not exist",
    "42P02": "a parameter that the statement names does not exist",
    "42P05": "a prepared statement of this name exists already",
    "42P18": "the type of a parameter cannot be determined",
    "08P01": "the message does not fit the statement",
    "25P02": "the transaction has failed: nothing is done until ROLLBACK",
    "26000": "no such prepared statement",
    "34000": "no such portal or cursor",
    "42P03": "a portal or cursor of this name exists already",
    "55000": "this is not possible in the state that it is in",
    "0A000": "the source database does not support this",
}
_CLASSES: Final = {
    "22": "a value is not valid for what is done with it",
    "23": "an integrity constraint does not hold",
    "42": "the statement does not fit the tables",
}


_ROW_REFUSED: Final = "row refused by policy"
"""Begins the text that an INSERT of ours cannot cast when a row is not one to be written. Whoever
casts such a text herself hears that policy refused, which harms nobody."""


def sqlstate_of(source: ErrorResponse) -> str:
    """The SQLSTATE for the client and the log."""
    if source.sqlstate == "22P02" and f'"{_ROW_REFUSED}' in source.message:
        return "42501"
    return source.sqlstate


def client_error(source: ErrorResponse, reference: str) -> bytes:
    """The error as the client sees it; ``reference`` is where the log has the statement."""
    state = sqlstate_of(source)
    if state != source.sqlstate:
        return error(state, f"policy does not allow you to write this row ({reference})")
    words = _WORDS.get(state) or _CLASSES.get(state[:2])
    if words is None and state[:2] in _HARMLESS_CLASSES:
        words = source.message
    if words is None:
        words = "the source database could not do this"
    severity = "FATAL" if source.severity in {"FATAL", "PANIC"} else "ERROR"
    return error(state, f"{words} ({reference})", severity=severity)


def client_notice(fields: dict[str, str]) -> bytes:
    """A notice of the source, or nothing: only transaction warnings pass, without details."""
    state = fields.get("C", "")
    if state[:2] != "25":
        return b""
    return notice(fields.get("M", ""), sqlstate=state)
