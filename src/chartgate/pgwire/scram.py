"""SCRAM-SHA-256, both sides, without I/O (RFC 5802, RFC 7677; PostgreSQL's dialect of them).

Rules kept:

- the server holds a verifier and never the password, and runs PBKDF2 never;
- an unknown user and a wrong password take the same steps and give the same answer;
- proofs are compared in constant time;
- the server's own proof is checked by the client, or the login failed;
- channel binding (``-PLUS``) is not offered, so ``c=`` must repeat the client's own header.

Nonces are the caller's: printable ASCII without a comma, e.g. the Base64 of 18 random bytes.
"""

import hashlib
import hmac
import re
import stringprep
import unicodedata
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from typing import ClassVar, Final

from chartgate.errors import ChartgateError, Corrupt
from chartgate.pgwire.violation import ProtocolViolation

MECHANISM: Final = "SCRAM-SHA-256"
ITERATIONS: Final = 4096
MAX_ITERATIONS: Final = 1_000_000

_NONCE: Final = re.compile(rb"[\x21-\x2b\x2d-\x7e]+")
_NAME: Final = re.compile(rb"n=(?:[^\0,=]|=2C|=3D)*")
_NUMBER: Final = re.compile(rb"[1-9][0-9]{0,8}")


class AuthenticationFailed(ChartgateError):
    """The login failed. One message for every reason, so that nobody learns which names exist."""

    code = "authentication_failed"
    sqlstate: ClassVar[str] = "28P01"

    def __init__(self, message: str = "password authentication failed") -> None:
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Verifier:
    """What the server stores instead of the password, in PostgreSQL's own notation."""

    iterations: int
    salt: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def __str__(self) -> str:
        salt, stored, server = (
            b64encode(part).decode() for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"{MECHANISM}${self.iterations}:{salt}${stored}:{server}"

    @classmethod
    def parse(cls, text: str) -> "Verifier":
        """The verifier in ``text``; one spelling only."""
        match = re.fullmatch(
            r"SCRAM-SHA-256\$([1-9][0-9]{0,8}):([^$:]+)\$([^$:]+):([^$:]+)", text, re.ASCII
        )
        if match is None:
            raise Corrupt("a stored verifier is not SCRAM-SHA-256")
        try:
            salt, stored, server = (b64decode(part, validate=True) for part in match.groups()[1:])
        except (Base64Error, ValueError) as exc:
            raise Corrupt("a stored verifier is not Base64") from exc
        parsed = cls(int(match[1]), salt, stored, server)
        if len(stored) != 32 or len(server) != 32 or str(parsed) != text:
            raise Corrupt("a stored verifier is not SCRAM-SHA-256")
        return parsed


def mint_verifier(password: str, *, salt: bytes, iterations: int = ITERATIONS) -> str:
    """The verifier of ``password`` as PostgreSQL's ``pg_authid.rolpassword`` would hold it."""
    salted = _salted(password, salt, iterations)
    stored = hashlib.sha256(_mac(salted, b"Client Key")).digest()
    return str(Verifier(iterations, salt, stored, _mac(salted, b"Server Key")))


class ScramServer:
    """The server's side of one login: ``start``, then ``finish``, once each."""

    __slots__ = ("_auth", "_bound", "_known", "_nonce", "_offers_plus", "_server", "_verifier")

    def __init__(
        self,
        verifier: str | None,
        nonce: bytes,
        *,
        mock_salt: bytes,
        mock_iterations: int = ITERATIONS,
        offers_plus: bool = False,
    ) -> None:
        """``verifier`` is None for an unknown user, who then meets ``mock_salt``.

        ``mock_salt`` must be stable per name and unpredictable (a keyed hash of the name), and as
        long as real salts are; otherwise two attempts tell an unknown name from a known one.
        """
        _check_nonce(nonce)
        self._known = verifier is not None
        if verifier is None:
            dead = hashlib.sha256(mock_salt).digest()
            self._verifier = Verifier(mock_iterations, mock_salt, dead, dead)
        else:
            self._verifier = Verifier.parse(verifier)
        self._offers_plus = offers_plus
        self._server = nonce
        self._nonce = b""
        self._bound = b""
        self._auth = b""

    def start(self, initial: bytes) -> bytes:
        """The answer to client-first-message: nonce, salt, iterations."""
        if self._nonce:
            raise ProtocolViolation("SCRAM was started twice")
        flag, _, rest = initial.partition(b",")
        authzid, _, bare = rest.partition(b",")
        if flag == b"y" and self._offers_plus:
            # The client can bind and believes we cannot: somebody took our offer away.
            raise AuthenticationFailed
        if flag not in (b"n", b"y"):
            raise ProtocolViolation("SCRAM asks for channel binding, which was not offered")
        if authzid:
            raise ProtocolViolation("SCRAM names another identity, which is not supported")
        name, _, rest = bare.partition(b",")
        nonce, _, _ = rest.partition(b",")  # extensions may follow and mean nothing to us
        if not _NAME.fullmatch(name) or not _is_utf8(name):
            raise ProtocolViolation("the first SCRAM message has no user name")
        if nonce[:2] != b"r=" or not _NONCE.fullmatch(nonce, 2):
            raise ProtocolViolation("the first SCRAM message has no nonce")
        self._bound = b64encode(flag + b",,")
        self._nonce = nonce[2:] + self._server
        salt = b64encode(self._verifier.salt)
        answer = b"r=%b,s=%b,i=%d" % (self._nonce, salt, self._verifier.iterations)
        self._auth = bare + b"," + answer
        return answer

    def finish(self, final: bytes) -> bytes:
        """The answer to client-final-message, which carries the server's proof; or raises."""
        if not self._auth:
            raise ProtocolViolation("SCRAM ends before it starts")
        unproven, mark, encoded = final.rpartition(b",p=")
        fields = unproven.split(b",")
        proof = _base64(encoded)
        if not mark or len(fields) < 2 or proof is None or len(proof) != 32:
            raise ProtocolViolation("the last SCRAM message is not complete")
        auth = self._auth + b"," + unproven
        self._auth = b""
        # (1) RFC 5802, 3: ClientKey = ClientProof XOR HMAC(StoredKey, AuthMessage)
        key = _xor(proof, _mac(self._verifier.stored_key, auth))
        proven = hmac.compare_digest(hashlib.sha256(key).digest(), self._verifier.stored_key)
        # (2) The header and the nonce are ours and this login's, not another's.
        bound = hmac.compare_digest(fields[0], b"c=" + self._bound)
        fresh = hmac.compare_digest(fields[1], b"r=" + self._nonce)
        if not (proven & bound & fresh & self._known):
            raise AuthenticationFailed
        return b"v=" + b64encode(_mac(self._verifier.server_key, auth))


class ScramClient:
    """The client's side of one login: ``initial``, ``respond``, ``verify``, once each."""

    __slots__ = ("_auth", "_bare", "_least", "_nonce", "_password", "_signature")

    def __init__(
        self, user: str, password: str, nonce: bytes, *, minimum_iterations: int = ITERATIONS
    ) -> None:
        """A server that asks for fewer rounds than ``minimum_iterations`` gets no proof."""
        _check_nonce(nonce)
        name = saslprep(user).replace("=", "=3D").replace(",", "=2C")
        self._bare = b"n=" + name.encode("utf-8", "surrogatepass") + b",r=" + nonce
        self._nonce = nonce
        self._password = password
        self._least = minimum_iterations
        self._auth = b""
        self._signature = b""

    def initial(self) -> bytes:
        """client-first-message, without channel binding."""
        return b"n,," + self._bare

    def respond(self, server_first: bytes) -> bytes:
        """client-final-message: the proof that we know the password."""
        if self._auth:
            raise ProtocolViolation("the server repeats its SCRAM challenge")
        fields = server_first.split(b",")
        if len(fields) < 3 or [part[:2] for part in fields[:3]] != [b"r=", b"s=", b"i="]:
            raise ProtocolViolation("the server's SCRAM challenge is not complete")
        nonce, salt, rounds = fields[0][2:], _base64(fields[1][2:]), fields[2][2:]
        if not _NONCE.fullmatch(nonce) or not salt or not _NUMBER.fullmatch(rounds):
            raise ProtocolViolation("the server's SCRAM challenge is malformed")
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise AuthenticationFailed("the server's SCRAM nonce does not extend ours")
        if not self._least <= int(rounds) <= MAX_ITERATIONS:
            raise AuthenticationFailed("the server's SCRAM iteration count is out of bounds")
        salted = _salted(self._password, salt, int(rounds))
        unproven = b"c=biws,r=" + nonce
        self._auth = b",".join((self._bare, server_first, unproven))
        key = _mac(salted, b"Client Key")
        proof = _xor(key, _mac(hashlib.sha256(key).digest(), self._auth))
        self._signature = _mac(_mac(salted, b"Server Key"), self._auth)
        return unproven + b",p=" + b64encode(proof)

    def verify(self, server_final: bytes) -> None:
        """Check the server's own proof; raises unless it knows our verifier."""
        if not self._signature:
            raise ProtocolViolation("the server ends SCRAM before it starts")
        expected, self._signature = b"v=" + b64encode(self._signature), b""
        if not hmac.compare_digest(server_final.partition(b",")[0], expected):
            raise AuthenticationFailed("the server did not prove that it knows the password")


def saslprep(text: str) -> str:
    """RFC 4013 as PostgreSQL applies it: text that may not be prepared is used as it is."""
    if text.isascii():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in text
        if not stringprep.in_table_b1(char)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    if not prepared or any(_is_prohibited(char) for char in prepared):
        return text
    # RFC 3454, 6: right-to-left text begins and ends so, and holds no left-to-right character
    if any(stringprep.in_table_d1(char) for char in prepared) and (
        not stringprep.in_table_d1(prepared[0])
        or not stringprep.in_table_d1(prepared[-1])
        or any(stringprep.in_table_d2(char) for char in prepared)
    ):
        return text
    return prepared


def _is_prohibited(char: str) -> bool:
    return (
        stringprep.in_table_a1(char)
        or stringprep.in_table_c12(char)
        or stringprep.in_table_c21_c22(char)
        or stringprep.in_table_c3(char)
        or stringprep.in_table_c4(char)
        or stringprep.in_table_c5(char)
        or stringprep.in_table_c6(char)
        or stringprep.in_table_c7(char)
        or stringprep.in_table_c8(char)
        or stringprep.in_table_c9(char)
    )


def _salted(password: str, salt: bytes, iterations: int) -> bytes:
    # surrogatepass: a password is never a reason for an encoding error
    secret = saslprep(password).encode("utf-8", "surrogatepass")
    return hashlib.pbkdf2_hmac("sha256", secret, salt, iterations)


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _base64(encoded: bytes) -> bytes | None:
    try:
        decoded = b64decode(encoded, validate=True)
    except (Base64Error, ValueError):
        return None
    return decoded if b64encode(decoded) == encoded else None  # one spelling


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_nonce(nonce: bytes) -> None:
    if not _NONCE.fullmatch(nonce):
        raise ValueError("a SCRAM nonce is printable ASCII without a comma")
