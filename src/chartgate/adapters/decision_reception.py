"""Who asks at the HTTPS door, and whether it is something to answer: from the head alone.

The rule kept: a caller that is not known learns nothing but that, and before its body is read
(45 CFR 164.312(d)).
"""

import asyncio
import hashlib
import math
import ssl
import time
from typing import Any, Final, NamedTuple

from chartgate.adapters.decision_callers import Refusals
from chartgate.adapters.decision_desk import Answerer
from chartgate.adapters.decision_http1 import Head
from chartgate.adapters.decision_replies import Extra
from chartgate.app.authzen_errors import error_body
from chartgate.app.node_asked import Caller, UnknownCaller
from chartgate.model.service import Service

BASE: Final = "/access/v1/"
QUESTIONS: Final = {
    f"{BASE}{operation}": operation
    for operation in (
        "evaluation",
        "evaluations",
        "search/subject",
        "search/resource",
        "search/action",
    )
}
METRICS: Final = "/metrics"
Refusal = tuple[int, bytes, bytes]
"""Status, body, header lines."""


class Peer(NamedTuple):
    """Who is at the other end, as far as the connection says: address, certificate if verified."""

    client: str = ""
    fingerprint: str = ""
    subject: str = ""
    until: float = math.inf
    """When its certificate ends, in seconds since 1970: a connection may outlast it."""


class Admitted(NamedTuple):
    """What may be answered: a page, or an operation that a caller asks for."""

    operation: str = ""
    caller: Caller | None = None


class Reception:
    """Of one door; ``paths`` are those of its pages."""

    def __init__(
        self, node: Answerer, refusals: Refusals, paths: frozenset[str], channel: str
    ) -> None:
        self._node: Final = node
        self._refusals: Final = refusals
        self._paths: Final = paths
        self._channel: Final = channel

    def admit(self, head: Head, peer: Peer) -> Admitted | Refusal:
        """What it asks, if this caller may ask anything; else how it is answered."""
        operation = QUESTIONS.get(head.path)
        if operation is None:
            return self._page(head, peer)
        if head.method != "POST":
            return 405, _NO_METHOD, Extra.ALLOW_POST
        service = self._service(head, peer)
        if isinstance(service, tuple):
            return service
        if head.is_encoded:
            return 415, _ENCODED, Extra.NONE
        if not head.is_json:
            return 400, _NOT_JSON, Extra.NONE
        return Admitted(operation, Caller(service, self._channel))

    def _page(self, head: Head, peer: Peer) -> Admitted | Refusal:
        if head.path not in self._paths:
            return 404, _NOT_FOUND, Extra.NONE
        if head.method not in ("GET", "HEAD"):
            return 405, _NO_METHOD, Extra.ALLOW_GET
        if head.path == METRICS and peer.client not in ("127.0.0.1", "::1"):
            service = self._service(head, peer)
            if isinstance(service, tuple):
                return service
        return _PAGE

    def _service(self, head: Head, peer: Peer) -> Service | Refusal:
        """Who asks."""
        node = self._node
        try:
            if head.token:
                return node.service_of_token(head.token)
            if head.malformed_credential:
                raise UnknownCaller("a credential that is not a bearer token")
            if peer.fingerprint and time.time() >= peer.until:
                raise UnknownCaller("the certificate has ended")
            if peer.fingerprint:
                return node.service_of_certificate(peer.fingerprint, peer.subject)
            raise UnknownCaller("no credential")
        except UnknownCaller as exc:
            often = self._refusals.add(peer.client, str(exc))
        if often:
            return 429, _TOO_OFTEN, Extra.RETRY_LATER
        return 401, _UNKNOWN, Extra.WRONG_TOKEN if head.token else Extra.NO_TOKEN


def address_of(transport: asyncio.BaseTransport) -> str:
    """Where it comes from."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else ""


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    """Whoever is at the other end; of a certificate, which the handshake has verified, fingerprint
    and subject."""
    client = address_of(transport)
    link: Any = transport.get_extra_info("ssl_object")
    if link is None:
        return Peer(client)
    try:
        der = link.getpeercert(binary_form=True)
        if not der:
            return Peer(client)
        said: dict[str, Any] = link.getpeercert() or {}
    except (ssl.SSLError, ValueError):
        return Peer(client)
    try:
        until = ssl.cert_time_to_seconds(said["notAfter"])
    except (KeyError, ValueError):
        return Peer(client)
    if "subjectAltName" in said:
        # RFC 9525, 2: beside a name that says its kind the common name is only a text, and may be
        # a person's who has a certificate for her mail
        names = [value for kind, value in said["subjectAltName"] if kind in ("DNS", "URI")]
    else:
        names = [v for part in said.get("subject", ()) for k, v in part if k == "commonName"]
    return Peer(client, hashlib.sha256(der).hexdigest(), names[0] if names else "", until)


_PAGE: Final = Admitted()
_NOT_FOUND: Final = error_body("not_found", "there is nothing at this path")
_NO_METHOD: Final = error_body("method_not_allowed", "this path is not asked so")
_NOT_JSON: Final = error_body("not_json", "the content type has to be application/json")
_ENCODED: Final = error_body("encoded", "a body with a content coding is not read")
_UNKNOWN: Final = error_body("unknown_caller", "the service's credential is missing or not valid")
_TOO_OFTEN: Final = error_body("too_often", "too many requests without a valid credential")
