"""One question to the running decision service, by HTTPS or its Unix socket.

Rules kept: the token is read from a file that nobody else can read, or from the environment, and is
never shown; the service's certificate is always verified; without TLS only this machine is spoken
to. What is not a well-formed answer is a fault, never a decision.
"""

import http.client
import ipaddress
import os
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from chartgate.adapters.state import State
from chartgate.errors import ChartgateError, Misconfigured

URL: Final = "CHARTGATE_URL"
TOKEN: Final = "CHARTGATE_TOKEN"  # noqa: S105  (the name of a variable)
TOKEN_FILE: Final = "CHARTGATE_TOKEN_FILE"  # noqa: S105
PATH: Final = "/access/v1/evaluation"
SECONDS: Final = 10.0
_MOST: Final = 16 << 20


class NoAnswer(ChartgateError):
    """The decision service did not decide; the message says what it said, or why it said nothing."""

    code = "no_answer"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service is, whom to trust there, and with which token to ask."""

    url: str
    token: str
    authority: Path | None = None


def address(
    state: State, *, url: str | None, token_file: Path | None, authority: Path | None
) -> Address:
    """Where and as whom to ask: what was said, what the environment says, the instance's own."""
    named = url or os.environ.get(URL) or ""
    given = _token(token_file)
    own_authority = state.authority if state.authority.exists() else None
    if named and given is not None:
        return Address(named, given, authority or (own_authority if _is_here(named) else None))
    instance = state.instance()
    where = named or instance.decisions
    if not where:
        raise Misconfigured(
            f"no decision service runs in {state.root}: start one with `chartgate demo` or "
            f"`chartgate serve`, or say where it is: --url, or {URL}"
        )
    if given is None:
        own = state.token_file(instance.asker) if instance.asker else None
        if own is None or not own.exists():
            raise Misconfigured(
                f"no service token: name its file with --token-file, or set {TOKEN_FILE}; "
                "`chartgate service token` makes one"
            )
        given = _read_token(own)
    ours = authority or (own_authority if not named or _is_here(named) else None)
    return Address(where, given, ours)


def _is_here(url: str) -> bool:
    """Whether it is an address of this machine, whose certificate is of the instance's making."""
    try:
        return _is_this_machine(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _token(file: Path | None) -> str | None:
    named = file or (Path(os.environ[TOKEN_FILE]) if os.environ.get(TOKEN_FILE) else None)
    if named is not None:
        return _read_token(named)
    return _visible(os.environ[TOKEN], TOKEN) if os.environ.get(TOKEN) else None


def _read_token(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise Misconfigured(f"{path} can be read by others: chmod 600 it")
        return _visible(path.read_text("ascii"), str(path))
    except (OSError, UnicodeDecodeError) as exc:
        raise Misconfigured(f"the token file {path} cannot be read") from exc


def _visible(text: str, where: str) -> str:
    # RFC 6750, section 2.1: anything else could end the header.
    token = text.strip()
    if not token or len(token) > 4096 or not all("!" <= c <= "~" for c in token):
        raise Misconfigured(f"{where} holds no token: one line of visible ASCII is wanted")
    return token


def ask(where: Address, question: Mapping[str, Any]) -> dict[str, Any]:
    """The decision and its context; raises ``NoAnswer``."""
    if where.url.startswith("unix:"):
        status, body = _by_socket(Path(where.url.removeprefix("unix:")), where.token, question)
    else:
        status, body = _by_http(where, msgspec.json.encode(question))
    if status != 200 or not isinstance(body, dict) or not isinstance(body.get("decision"), bool):
        raise NoAnswer(_said(status, body))
    return body


def _said(status: int, body: object) -> str:
    said = body.get("message") if isinstance(body, dict) else None
    if not isinstance(said, str):
        return f"the decision service answered {status}, and nothing that can be read"
    return {
        401: f"the decision service does not know this service token: {said}; `chartgate service "
        "token` makes another",
        403: f"not decided: {said} (`chartgate service show` tells what it is)",
        503: f"the decision service cannot decide at the moment: {said}",
    }.get(status, f"the decision service refused the question ({status}): {said}")


def _by_socket(path: Path, token: str, question: Mapping[str, Any]) -> tuple[int, Any]:
    from chartgate.sdk.calling import Call, NoReply, NotTrusted
    from chartgate.sdk.unix import Unix

    link = Unix(path)
    try:
        reply = link.exchange(Call("evaluation", question, secrets.token_hex(8)), token, SECONDS)
    except NotTrusted as exc:
        raise NoAnswer(f"the decision service is not asked at {path}: {exc}") from None
    except NoReply:
        raise NoAnswer(f"the decision service does not answer at {path}") from None
    finally:
        link.close()
    return reply.status, reply.body


def _by_http(where: Address, body: bytes) -> tuple[int, Any]:
    parts = urlsplit(where.url)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username:
        raise Misconfigured("an address is https://HOST:PORT or unix:/PATH")
    try:
        port = parts.port
    except ValueError:
        raise Misconfigured("the port of an address is 1 to 65535") from None
    link = _link(where, parts.scheme, parts.hostname, port)
    headers = {
        "Authorization": f"Bearer {where.token}",
        "Content-Type": "application/json",
        "X-Request-ID": secrets.token_hex(8),
    }
    try:
        link.request("POST", parts.path.rstrip("/") + PATH, body=body, headers=headers)
        answer = link.getresponse()
        return answer.status, _json(answer.read(_MOST))
    except ssl.SSLCertVerificationError as exc:
        raise NoAnswer(
            f"the certificate of {parts.hostname} is not trusted ({exc.verify_message}): name its "
            "authority with --ca"
        ) from exc
    except (OSError, http.client.HTTPException) as exc:
        why = getattr(exc, "strerror", None) or type(exc).__name__
        raise NoAnswer(f"the decision service does not answer at {where.url}: {why}") from exc
    finally:
        link.close()


def _link(where: Address, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "https":
        try:
            trust = ssl.create_default_context(cafile=where.authority)
        except (OSError, ssl.SSLError) as exc:
            raise Misconfigured(f"{where.authority} is no file of certificates") from exc
        return http.client.HTTPSConnection(host, port, timeout=SECONDS, context=trust)
    if not _is_this_machine(host):
        raise Misconfigured("without TLS only this machine is spoken to: use https://")
    return http.client.HTTPConnection(host, port, timeout=SECONDS)


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None
