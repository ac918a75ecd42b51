"""Certificates for one day, with which the proof runs a sandbox whose callers have to show one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def write_certificates(folder: Path) -> None:
    """Makes `ca.crt`, and `tls.crt` with `tls.key` for `localhost`, which both sides show; every user may read them."""
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer, name = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in ("proof", "proof-client"))
    ca = _unsigned(issuer, issuer, authority).add_extension(x509.BasicConstraints(True, None), critical=True)
    certificate = _unsigned(name, issuer, own).add_extension(
        x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
    )
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for file, content in (
        ("ca.crt", ca.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)),
        ("tls.crt", certificate.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)),
        ("tls.key", own.private_bytes(*plain)),
    ):
        (folder / file).write_bytes(content)
        (folder / file).chmod(0o644)
    folder.chmod(0o755)


def _unsigned(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
    )
