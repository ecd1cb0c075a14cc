"""Where the decision service answers what: its metadata document (AuthZEN 1.0, "PDP metadata").

The rules kept: ``policy_decision_point`` is the very URL that was asked about, https, without query
or fragment; a parameter without a value is left out; the document of a decision point whose URL has
a path is found below the well-known name (RFC 8615), ``/.well-known/authzen-configuration/pdp``.
"""

import re
from typing import Final

import msgspec

from chartgate.errors import Misconfigured

WELL_KNOWN: Final = "/.well-known/authzen-configuration"
EVALUATION: Final = "/access/v1/evaluation"
EVALUATIONS: Final = "/access/v1/evaluations"
SEARCH_SUBJECT: Final = "/access/v1/search/subject"
SEARCH_RESOURCE: Final = "/access/v1/search/resource"
SEARCH_ACTION: Final = "/access/v1/search/action"

_HOST: Final = r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?"
_PATH: Final = r"(?:/[A-Za-z0-9._~-]{1,64}){0,8}"
_BASE: Final = re.compile(f"https://{_HOST}({_PATH})", re.ASCII)
_HOST_ALONE: Final = re.compile(_HOST, re.ASCII)


class NotABaseUrl(Misconfigured):
    """The public URL of the service is not one that a metadata document may name."""

    code = "not_a_base_url"


class Metadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """The document. ``capabilities`` are URNs from the registry of AuthZEN; we have none."""

    policy_decision_point: str
    access_evaluation_endpoint: str
    access_evaluations_endpoint: str = ""
    search_subject_endpoint: str = ""
    search_resource_endpoint: str = ""
    search_action_endpoint: str = ""
    capabilities: tuple[str, ...] = ()


def check_base_url(base: str) -> str:
    """The base URL itself; raises ``NotABaseUrl`` unless it is https, without query or fragment."""
    if not _BASE.fullmatch(base):
        raise NotABaseUrl(
            "the public URL has to be https://host[:port][/path], in lower case, without a slash at"
            " its end, query or fragment"
        )
    return base


def base_url_of_host(host: bytes | None) -> str | None:
    """The base URL that a caller has asked, by its ``Host``; None for what is no host.

    What it is told is about what it has asked itself, so that nobody can be told of another's host.
    """
    text = (host or b"").decode("latin-1").lower()
    return f"https://{text}" if _HOST_ALONE.fullmatch(text) else None


def metadata_path(base: str) -> str:
    """The path under which the document of this decision point is asked for."""
    found = _BASE.fullmatch(base)
    return WELL_KNOWN + (found[1] if found else "")


def metadata(base: str, *, searches: bool = True) -> bytes:
    """The document of the decision point at ``base``; raises ``NotABaseUrl``."""
    check_base_url(base)
    document = Metadata(base, base + EVALUATION, base + EVALUATIONS)
    if searches:
        document = msgspec.structs.replace(
            document,
            search_subject_endpoint=base + SEARCH_SUBJECT,
            search_resource_endpoint=base + SEARCH_RESOURCE,
            search_action_endpoint=base + SEARCH_ACTION,
        )
    return msgspec.json.encode(document)
