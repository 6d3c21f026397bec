"""Signs X.509-SVIDs (SPIFFE X509-SVID 1.0) with a root that never leaves its directory."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.local.state import LocalStateError, own_directory

ROOT_DAYS = 3_650
ROOT_DAYS_LEFT_MIN = 30
"""A root with less left is replaced when the authority is opened; every certificate is then issued anew."""
SKEW_SECONDS = 60
"""How long before its issue a certificate is valid, for clocks that differ."""

KEY_FILE, CERTIFICATE_FILE = "root.key", "root.crt"

Now = Callable[[], datetime.datetime]


@dataclass(frozen=True)
class Svid:
    """A certificate and its private key as PEM, and what proves others: the root. `name` is its SPIFFE id, or a server's first name."""

    name: str
    certificate: str
    key: str = field(repr=False)
    root: str
    issued_at: datetime.datetime
    expires_at: datetime.datetime

    def half_life(self) -> datetime.datetime:
        """Return when it should be replaced: with half of its life left, so that an authority may be away for that long."""
        return self.issued_at + (self.expires_at - self.issued_at) / 2


class Authority:
    """The root key and its certificate. Open it with `open`; one process at a time.

    Args:
        key: of the root.
        certificate: of the root.
        now: the wall clock, with its zone.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, now: Now) -> None:
        self._key = key
        self._certificate = certificate
        self._now = now
        self.root_pem = _pem(certificate)

    @classmethod
    def open(cls, directory: Path, *, trust_domain: str, now: Now) -> Authority:
        """Read the root from its directory, or make one: both files mode 0600, in a directory of mode 0700.

        Raises:
            LocalStateError: the directory or the key is not this user's alone, or what is there is no root of this trust domain.
        """
        own_directory(directory)
        key_path, certificate_path = directory / KEY_FILE, directory / CERTIFICATE_FILE
        if key_path.exists() and certificate_path.exists():
            found = cls(*_read(key_path, certificate_path, trust_domain), now)
            if found._certificate.not_valid_after_utc - now() > datetime.timedelta(days=ROOT_DAYS_LEFT_MIN):
                return found
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(key, trust_domain, now())
        # The key last: with a key and no certificate nothing is usable, and both are made anew.
        _write(certificate_path, _pem(certificate))
        _write(key_path, _key_pem(key))
        return cls(key, certificate, now)

    def issue(self, spiffe_id: str, *, seconds: int) -> Svid:
        """Return a new key and a certificate for it, for both sides of TLS. One URI name and nothing else, as SPIFFE demands.

        Args:
            spiffe_id: such as `spiffe://trademesh.local/ns/trading/sa/svc-oms`.
            seconds: how long it is valid, at least 1.
        """
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(spiffe_id, [x509.UniformResourceIdentifier(spiffe_id)], usages, seconds)

    def issue_server(self, names: Sequence[str], *, seconds: int) -> Svid:
        """Return a new key and a certificate for it, for a TLS server that clients outside the mesh know by these names.

        Args:
            names: DNS names and IP addresses, at least one.
            seconds: how long it is valid, at least 1.
        """
        return self._issue(names[0], [_general_name(name) for name in names], [ExtendedKeyUsageOID.SERVER_AUTH], seconds)

    def _issue(self, title: str, names: list[x509.GeneralName], usages: list[x509.ObjectIdentifier], seconds: int) -> Svid:
        if seconds < 1:
            raise ValueError("a certificate is valid for at least a second")
        key, moment = ec.generate_private_key(ec.SECP256R1()), self._now()
        expires_at = moment + datetime.timedelta(seconds=seconds)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment - datetime.timedelta(seconds=SKEW_SECONDS))
            .not_valid_after(expires_at)
            # Critical because the subject is empty (RFC 5280, 4.2.1.6).
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Svid(title, _pem(certificate), _key_pem(key), self.root_pem, moment, expires_at)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _self_signed(key: ec.EllipticCurvePrivateKey, trust_domain: str, moment: datetime.datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - datetime.timedelta(seconds=SKEW_SECONDS))
        .not_valid_after(moment + datetime.timedelta(days=ROOT_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _read(key_path: Path, certificate_path: Path, trust_domain: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    if key_path.lstat().st_mode & 0o177:
        raise LocalStateError(f"mode must be 0600: {key_path}")
    try:
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    except ValueError as error:
        raise LocalStateError(f"not a root key and its certificate, remove both: {key_path}, {certificate_path}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        raise LocalStateError(f"the certificate is not this key's, remove both: {key_path}, {certificate_path}")
    organizations = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if organizations != [trust_domain]:
        raise LocalStateError(f"the root is of {', '.join(organizations)}, not of {trust_domain}; remove it: {certificate_path}")
    return key, certificate


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f"{path.name}.new")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    scratch.replace(path)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
