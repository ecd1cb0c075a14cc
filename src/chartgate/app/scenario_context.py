"""What a scenario says of a person's session: how she signed in, on what, and to whom records go.

The rule kept: circumstances that only an application can assert are absent unless a scenario names
them, as they are at the gate; a word that is not known is a fault of the file.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from chartgate.cedar.extensions import parse_ip
from chartgate.cedar.text import quoted
from chartgate.cedar.values import DateTime, IpAddr, RecordValue, Value
from chartgate.errors import Misconfigured
from chartgate.model.principal import EntityUid

CIRCUMSTANCES: Final = ("acr", "authenticated_at", "ip", "device", "session", "recipient")
DEVICES: Final = ("managed", "registered", "personal", "shared")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class InvalidScenario(Misconfigured):
    """A scenario file cannot be obeyed as written; the message names file, scenario and key."""

    code = "invalid_scenario"


def read_circumstances(where: str, form: Any) -> RecordValue:
    """The ``context`` table of a scenario as Cedar sees it; without one nothing is said."""
    told = {} if form is None else form
    if not isinstance(told, Mapping):
        raise InvalidScenario(f"{where}: not a table")
    if strange := sorted(set(told) - set(CIRCUMSTANCES)):
        known = ", ".join(CIRCUMSTANCES)
        raise InvalidScenario(f"{where}: unknown key {strange[0]}; known are {known}")
    return RecordValue({name: _read(f"{where}: {name}", name, v) for name, v in told.items()})


def _read(where: str, name: str, said: Any) -> Value:
    if name == "acr":
        if type(said) is not int:
            raise InvalidScenario(f"{where} is a whole number")
        return said
    if name == "authenticated_at":
        if not isinstance(said, datetime) or said.tzinfo is None:
            raise InvalidScenario(f"{where} is a date and time with its zone")
        return DateTime((said - _EPOCH) // timedelta(milliseconds=1))
    if not isinstance(said, str):
        raise InvalidScenario(f"{where} is a text")
    if name == "ip":
        address = parse_ip(said)
        if address is None:
            raise InvalidScenario(f"{where} is an address")
        return address
    if name != "device":
        return said
    if said not in DEVICES:
        raise InvalidScenario(f"{where} is one of {', '.join(DEVICES)}")
    return EntityUid("Device", said)


def circumstances_text(context: RecordValue) -> str | None:
    """The table that reads back as what is said in ``context``: empty if nothing is; None if a
    scenario cannot say it."""
    lines = []
    for name in CIRCUMSTANCES:
        value = context.get(name)
        if value is None:
            continue
        written = _written(value)
        if written is None:
            return None
        lines.append(f"{name} = {written}")
    return f"{{ {', '.join(lines)} }}" if lines else ""


def _written(value: Value) -> str | None:
    match value:
        case bool():
            return None
        case int():
            return str(value)
        case str():
            return quoted(value)
        case EntityUid():
            return quoted(value.id) if value.id in DEVICES else None
        case DateTime():
            try:
                return (_EPOCH + timedelta(milliseconds=value.ms)).isoformat()
            except OverflowError:  # Cedar's calendar is longer than TOML's
                return None
        case IpAddr():
            kind = IPv4Address if value.version == 4 else IPv6Address
            length = "" if value.prefix == value.bits else f"/{value.prefix}"
            return quoted(f"{kind(value.address)}{length}")
        case _:
            return None
