"""From the grid's key to TLS: who may talk to whom.

The key (``peers/keys.py``) and the grid's name give 32 bytes: a password through scrypt, a random
key as it is. From these HKDF derives the private key of a certificate authority whose certificate
is the same, byte for byte, in every process; nothing has to be handed out. Each process makes a key
pair of its own, issues itself a certificate, and forgets the authority. Both sides of every
connection demand a certificate of the authority, over TLS 1.3 only, so whoever lacks the key is
turned away before one byte of theirs is interpreted.

A *peer id* is the fingerprint of a process's certificate: it cannot be claimed by another.

Promises: the secret is not kept after ``secure`` returns, and is in no ``repr``, log or error; the
private key of the certificate never reaches a disk where the system offers memory files; dates are
fixed and wide, so wrong clocks lock nobody out.

Does not protect members from each other: who has the key may issue any certificate. Does not hide a
guessable password from one who reaches the port: each guess costs one scrypt. There is no cache
of stretched passwords: finding an entry by its password needs a digest of the password, which
would be cheaper to guess against than the scrypt it saves (a twentieth of a second a process).
"""

import datetime
import hashlib
import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from peers.keys import Key, find_key

_NOT_BEFORE = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
_SCHEME = b"peergrid 1"  # separates these keys from any others made of the same secret
_ID_DIGITS = 32  # 128 bits: beyond anyone's power to collide with


@dataclass(frozen=True)
class Security:
    """What one process needs to prove itself and to check others.

    ``tag`` names the key and the grid without revealing either; it is fit for folder names.
    ``source`` says where the key came from, ``automatic`` that nobody configured it. What peers
    leave on disk for the next is signed with ``journal_key``.
    """

    peer_id: str
    tag: str
    source: str
    automatic: bool
    journal_key: bytes = field(repr=False)
    server_context: ssl.SSLContext = field(repr=False)
    client_context: ssl.SSLContext = field(repr=False)


def secure(
    grid: str,
    *,
    password: str | bytes | None = None,
    key_file: str | Path | None = None,
    loopback_only: bool,
    weak: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Security:
    """Find the key and make this process a new identity in the grid called ``grid``.

    ``loopback_only`` says that no other host can reach the grid: then a weak password or the
    user's own key will do. With ``weak`` such a password will do anyway. Raises ``BadKey``.
    """
    key = find_key(
        password=password,
        key_file=key_file,
        loopback_only=loopback_only,
        weak=weak,
        environ=environ,
    )
    return issue(grid, key)


def issue(grid: str, key: Key) -> Security:
    """Make a new identity under this key. Takes a twentieth of a second for a password."""
    secret = _stretched(grid, key)
    authority = Ed25519PrivateKey.from_private_bytes(_derived(secret, grid, b"authority"))
    authority_der = _authority_certificate(authority)
    own = Ed25519PrivateKey.generate()
    certificate = _own_certificate(authority, own)
    pem = own.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    return Security(
        peer_id=fingerprint(certificate.public_bytes(serialization.Encoding.DER)),
        tag=_derived(secret, grid, b"tag")[:8].hex(),
        source=key.source,
        automatic=key.automatic,
        journal_key=_derived(secret, grid, b"journal"),
        server_context=_context(ssl.PROTOCOL_TLS_SERVER, authority_der, pem),
        client_context=_context(ssl.PROTOCOL_TLS_CLIENT, authority_der, pem),
    )


def fingerprint(certificate_der: bytes) -> str:
    """Return the peer id that belongs to a certificate."""
    return hashlib.sha256(certificate_der).hexdigest()[:_ID_DIGITS]


def key_tag(grid: str, key: Key) -> str:
    """Return the ``tag`` that ``key`` has in this grid: equal tags, equal keys."""
    return _derived(_stretched(grid, key), grid, b"tag")[:8].hex()


def _stretched(grid: str, key: Key) -> bytes:
    if not key.stretch:
        return key.secret
    salt = hashlib.sha256(_SCHEME + b"\0" + grid.encode()).digest()
    return hashlib.scrypt(key.secret, salt=salt, n=2**14, r=8, p=1, dklen=32)


def _derived(secret: bytes, grid: str, purpose: bytes) -> bytes:
    info = purpose + b"\0" + grid.encode()
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=_SCHEME, info=info).derive(secret)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(subject: str, key: Ed25519PrivateKey, serial: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name("peergrid authority"))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_certificate(authority: Ed25519PrivateKey) -> bytes:
    """The authority's certificate in DER. Ed25519 signs deterministically, so all make the same."""
    public = authority.public_key()
    builder = (
        _certificate("peergrid authority", authority, serial=1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    return builder.sign(authority, None).public_bytes(serialization.Encoding.DER)


def _own_certificate(authority: Ed25519PrivateKey, own: Ed25519PrivateKey) -> x509.Certificate:
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        _certificate("peergrid peer", own, serial=x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority, None)
    )


def _context(protocol: int, authority_der: bytes, pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # a peer is its certificate, whatever address it is dialled at
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority_der)
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # resumption would save little and skip the certificates
    with _secret_file(pem) as path:
        context.load_cert_chain(path)
    return context


@contextmanager
def _secret_file(content: bytes) -> Iterator[str]:
    """A path to ``content`` for as long as OpenSSL reads it: in memory, or else 0600 and brief."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        fd = os.memfd_create("certificate", os.MFD_CLOEXEC)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{fd}"
    else:
        with tempfile.NamedTemporaryFile(prefix="peergrid-") as named:
            named.write(content)
            named.flush()
            yield named.name
