"""TLS of the decision service: files given, or an authority of its own in the state folder.

The rules kept (45 CFR 164.312(e)(1)): TLS 1.3 is preferred and 1.2 the least, with forward secrecy and
AEAD only (RFC 9325); a private key is a file of ours that nobody else can read; certificates are read
again on demand, and one that cannot be read leaves the one in use in use. Callers' certificates are
asked for where an authority for them is named; whose certificate it is says the control plane. An
authority that is taken out of its file is trusted no more, and where certificates are asked for no
session is resumed by a ticket: who is who is looked at each time.

At the first start an authority is made, valid for ten years, and with it a certificate for this
machine, valid for 397 days and renewed at a start within the last 30. Whoever calls trusts ``ca.pem``.
"""

import datetime as dt
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chartgate.adapters.state import replace_file
from chartgate.errors import Misconfigured

CA: Final = "ca.pem"
CA_KEY: Final = "ca.key"
CERTIFICATE: Final = "server.pem"
KEY: Final = "server.key"
_CA_DAYS: Final = 3_652
_DAYS: Final = 397
_RENEW_DAYS: Final = 30
_TLS12: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


class Tls:
    """What connections are made with: ``context``, another one after each ``reload``."""

    def __init__(self, certificate: Path, key: Path, *, callers: Path | None = None) -> None:
        self._certificate = certificate
        self._key = key
        self._callers = callers
        self.context = self._made()

    def reload(self) -> None:
        """Read the files again; raises ``Misconfigured``, and then nothing has changed."""
        # a new one: whom a context was once told to trust, it trusts for good
        self.context = self._made()

    def _made(self) -> ssl.SSLContext:
        _check_private(self._key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_TLS12)  # of TLS 1.2; those of 1.3 are good by themselves
        context.set_alpn_protocols(["http/1.1"])
        # no renegotiation, no compression: OpenSSL's own defaults differ between builds
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._certificate, self._key)
        except (OSError, ssl.SSLError) as exc:
            raise Misconfigured(f"the certificate {self._certificate}: {_reason(exc)}") from exc
        if self._callers is None:
            return
        try:
            context.load_verify_locations(self._callers)
        except (OSError, ssl.SSLError) as exc:
            raise Misconfigured(f"the callers' authority {self._callers}: {_reason(exc)}") from exc
        # optional: a caller without one may have a token
        context.verify_mode = ssl.CERT_OPTIONAL
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET


def _reason(exc: OSError) -> str:
    return str(getattr(exc, "reason", None) or exc.strerror or "not readable")


def own_certificate(folder: Path, now: dt.datetime, names: tuple[str, ...] = ()) -> Path:
    """See that there is a certificate for this machine; answers the file of its authority."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / CA).exists():
        _make_authority(folder, now)
    wanted = _names(names)
    if _is_renewal_due(folder / CERTIFICATE, now, wanted):
        _make_certificate(folder, now, wanted)
    return folder / CA


def _names(more: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("localhost", "127.0.0.1", "::1", socket.gethostname(), *more)))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _is_renewal_due(path: Path, now: dt.datetime, names: tuple[str, ...]) -> bool:
    try:
        held = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return True
    alternative = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    known = set(alternative)
    if any(_general(name) not in known for name in names):
        return True
    return held.not_valid_after_utc - now < dt.timedelta(days=_RENEW_DAYS)


def _make_authority(folder: Path, now: dt.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Chartgate of this instance")])
    made = (
        _builder(name, name, key.public_key(), now, _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    # the key first: an authority without one could never make a certificate
    _save(folder / CA_KEY, _pem_of(key))
    _save(folder / CA, made.public_bytes(serialization.Encoding.PEM))


def _make_certificate(folder: Path, now: dt.datetime, names: tuple[str, ...]) -> None:
    _check_private(folder / CA_KEY)
    try:
        authority = x509.load_pem_x509_certificate((folder / CA).read_bytes())
        signing = serialization.load_pem_private_key((folder / CA_KEY).read_bytes(), None)
    except (OSError, ValueError) as exc:
        raise Misconfigured(f"the authority in {folder} cannot be read") from exc
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    made = (
        _builder(subject, authority.subject, key.public_key(), now, _DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False
        )
        .sign(signing, hashes.SHA256())
    )
    # one file after the other: a start between them finds a pair that does not fit, and says so
    _save(folder / KEY, _pem_of(key))
    _save(folder / CERTIFICATE, made.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=signs, crl_sign=signs,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _save(path: Path, data: bytes) -> None:
    replace_file(path, data)  # of mode 0600


def _check_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise Misconfigured(f"the key {path}: {exc.strerror}") from exc
    if mode & 0o077:
        raise Misconfigured(f"the key {path} is open to others: chmod 0600 it")
