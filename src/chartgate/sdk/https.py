"""The service over HTTPS, by httpx (``pip install 'chartgate[sdk]'``).

The rule kept: the service's certificate is always verified; a ``ca`` file says whom to trust beside
nobody else. Without TLS only this machine itself is spoken to: a token does not travel in clear.
Redirects are not followed and proxies of the environment not used: the address is what was said.
"""

import asyncio
import ipaddress
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from chartgate.sdk.calling import Call, NoReply, NotTrusted, Reply, encoded, why
from chartgate.sdk.errors import Misused

if TYPE_CHECKING:
    from httpx import AsyncClient, Client, Response

_BASE: Final = "/access/v1/"
_MOST_CONNECTIONS: Final = 64


class Https:
    """Blocking."""

    def __init__(
        self,
        url: str,
        *,
        ca: str | Path | None = None,
        certificate: tuple[str | Path, str | Path] | None = None,
    ) -> None:
        httpx = _httpx()
        self._failures: Final = (httpx.HTTPError, httpx.StreamError, OSError)
        self._client: Final[Client] = httpx.Client(**_settings(url, ca, certificate))

    def exchange(self, call: Call, token: str, seconds: float) -> Reply:
        try:
            answer = self._client.post(
                _BASE + call.op,
                content=encoded(call.body),
                headers=_headers(call, token),
                timeout=seconds,
            )
        except self._failures as exc:
            raise _no_reply(exc) from exc
        return _reply(answer)

    def close(self) -> None:
        self._client.close()


class AsyncHttps:
    """The same for asyncio."""

    def __init__(
        self,
        url: str,
        *,
        ca: str | Path | None = None,
        certificate: tuple[str | Path, str | Path] | None = None,
    ) -> None:
        httpx = _httpx()
        self._failures: Final = (httpx.HTTPError, httpx.StreamError, OSError)
        self._settings: Final = _settings(url, ca, certificate)
        self._client: AsyncClient = httpx.AsyncClient(**self._settings)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def exchange(self, call: Call, token: str, seconds: float) -> Reply:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # A test's client may have a loop for each request: connections of another are of no use.
            if self._loop is not None:
                self._client = _httpx().AsyncClient(**self._settings)
            self._loop = loop
        try:
            answer = await self._client.post(
                _BASE + call.op,
                content=encoded(call.body),
                headers=_headers(call, token),
                timeout=seconds,
            )
        except self._failures as exc:
            raise _no_reply(exc) from exc
        return _reply(answer)

    async def close(self) -> None:
        await self._client.aclose()


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise Misused(
            "HTTPS to the decision service needs httpx: pip install 'chartgate[sdk]' "
            "(its Unix socket and the embedded engine need nothing)"
        ) from None
    return httpx


def _settings(
    url: str, ca: str | Path | None, certificate: tuple[str | Path, str | Path] | None
) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
        raise Misused("the address of the decision service is https://host:port or unix:/path")
    if parts.username or parts.password:
        raise Misused("the address of the decision service holds no password: give a token")
    if parts.scheme == "http" and not _is_this_machine(parts.hostname):
        raise Misused("without TLS only this machine's own address is spoken to: use https://")
    httpx = _httpx()
    return {
        "base_url": url.rstrip("/"),
        "verify": _trust(ca, certificate) if parts.scheme == "https" else True,
        "trust_env": False,
        "follow_redirects": False,
        "limits": httpx.Limits(
            max_connections=_MOST_CONNECTIONS, max_keepalive_connections=_MOST_CONNECTIONS
        ),
    }


def _trust(
    ca: str | Path | None, certificate: tuple[str | Path, str | Path] | None
) -> ssl.SSLContext:
    try:
        # With a file of ours the system's authorities do not count.
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as exc:
        raise Misused(f"ca={str(ca)!r} holds no authority's certificate: {_said(exc)}") from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        try:
            context.load_cert_chain(*map(str, certificate))
        except (OSError, ssl.SSLError) as exc:
            raise Misused(f"our own certificate or its key cannot be read: {_said(exc)}") from exc
    return context


def _said(exc: OSError) -> str:
    reason = getattr(exc, "reason", None) or exc.strerror or "not readable"
    return str(reason).lower().replace("_", " ")


def _no_reply(failure: Exception) -> NoReply:
    link: BaseException | None = failure
    while link is not None:
        if isinstance(link, ssl.SSLCertVerificationError):
            return NotTrusted(
                f"its certificate is not trusted ({link.verify_message}): name its authority's file "
                "with ca="
            )
        if isinstance(link, ssl.SSLError):
            return NoReply("no TLS could be agreed on with it: is the url right?")
        link = link.__cause__ or link.__context__
    return NoReply(why(failure))


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _headers(call: Call, token: str) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "X-Request-ID": call.request_id,
    }
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if call.trace:
        headers["traceparent"] = call.trace
    return headers


def _reply(answer: "Response") -> Reply:
    try:
        return Reply(answer.status_code, msgspec.json.decode(answer.content))
    except msgspec.DecodeError:
        return Reply(answer.status_code, None)
