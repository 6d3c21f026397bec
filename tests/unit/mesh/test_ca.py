"""Certificates: what they say, for how long, and how they come to where Envoy watches."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from mesh.local.ca import Authority, flip, publish_certificate
from mesh.local.ca.authority import CERTIFICATE_FILE, KEY_FILE, ROOT_DAYS
from mesh.local.compiler.tls import CURRENT, IDENTITY_FILE, TRUST_FILE
from mesh.local.state import LocalStateError

NAME = "spiffe://trademesh.local/ns/trading/sa/svc-oms"
NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)


def opened(directory: Path, moment: datetime.datetime = NOON, *, trust_domain: str = "trademesh.local") -> Authority:
    return Authority.open(directory, trust_domain=trust_domain, now=lambda: moment)


def test_a_certificate_names_one_workload_for_both_sides_of_tls(tmp_path: Path) -> None:
    svid = opened(tmp_path / "ca").issue(NAME, seconds=3_600)
    certificate, root = x509.load_pem_x509_certificate(svid.certificate.encode()), x509.load_pem_x509_certificate(svid.root.encode())
    certificate.verify_directly_issued_by(root)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert [name.value for name in names.value] == [NAME]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usages = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usages == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    assert (certificate.not_valid_before_utc, certificate.not_valid_after_utc) == (
        NOON - datetime.timedelta(minutes=1),
        NOON + datetime.timedelta(hours=1),
    )
    assert svid.half_life() == NOON + datetime.timedelta(minutes=30)
    assert svid.key not in repr(svid)
    with pytest.raises(ValueError, match="at least a second"):
        opened(tmp_path / "ca").issue(NAME, seconds=0)


def test_the_root_is_kept_until_it_nears_its_end(tmp_path: Path) -> None:
    first = opened(tmp_path / "ca")
    assert opened(tmp_path / "ca").root_pem == first.root_pem
    assert (tmp_path / "ca" / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
    assert opened(tmp_path / "ca", NOON + datetime.timedelta(days=ROOT_DAYS - 31)).root_pem == first.root_pem
    assert opened(tmp_path / "ca", NOON + datetime.timedelta(days=ROOT_DAYS - 29)).root_pem != first.root_pem


def test_a_root_that_cannot_be_trusted_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "ca")
    with pytest.raises(LocalStateError, match=r"is of trademesh\.local, not of other\.local"):
        opened(tmp_path / "ca", trust_domain="other.local")
    (tmp_path / "ca" / KEY_FILE).chmod(0o644)
    with pytest.raises(LocalStateError, match="0600"):
        opened(tmp_path / "ca")
    (tmp_path / "ca" / KEY_FILE).chmod(0o600)
    opened(tmp_path / "second")
    (tmp_path / "second" / CERTIFICATE_FILE).rename(tmp_path / "ca" / CERTIFICATE_FILE)
    with pytest.raises(LocalStateError, match="not this key's"):
        opened(tmp_path / "ca")
    (tmp_path / "ca" / KEY_FILE).write_text("no key")
    with pytest.raises(LocalStateError, match="not a root key"):
        opened(tmp_path / "ca")


def test_a_certificate_comes_with_its_key_and_root_at_once(tmp_path: Path) -> None:
    svid = opened(tmp_path / "ca").issue(NAME, seconds=60)
    publish_certificate(tmp_path / "certificates", svid)
    current = tmp_path / "certificates" / CURRENT
    assert current.is_symlink()
    assert {path.name for path in current.iterdir()} == {IDENTITY_FILE, TRUST_FILE}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in current.iterdir())
    [secret] = json.loads((current / IDENTITY_FILE).read_text())["resources"]
    assert secret["name"] == "default"
    assert secret["tls_certificate"]["private_key"]["inline_string"] == svid.key


def test_a_flip_replaces_everything_or_nothing_and_clears_up(tmp_path: Path) -> None:
    assert flip(tmp_path / "w", {"a.json": 1, "b.json": 1})
    assert not flip(tmp_path / "w", {"b.json": 1, "a.json": 1})
    for number in range(2, 6):
        assert flip(tmp_path / "w", {"a.json": number})
        assert [path.name for path in (tmp_path / "w" / CURRENT).iterdir()] == ["a.json"]
        assert json.loads((tmp_path / "w" / CURRENT / "a.json").read_text()) == number
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == ["00000004", "00000005", CURRENT]


def test_what_a_crash_left_half_written_is_never_shown(tmp_path: Path) -> None:
    flip(tmp_path / "w", {"a.json": 1})
    (tmp_path / "w" / "00000002").mkdir()
    (tmp_path / "w" / f"{CURRENT}.new").symlink_to("00000002")
    assert flip(tmp_path / "w", {"a.json": 2})
    assert (tmp_path / "w" / CURRENT).readlink() == Path("00000003")
