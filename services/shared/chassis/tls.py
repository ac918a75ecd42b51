"""TLS for gRPC from files: who we are, whom we believe, how long it counts, and new files taken up without a restart."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import structlog
from cryptography import x509
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric

from services.shared.contracts.errors import Unavailable

log = structlog.get_logger()


@dataclass(frozen=True)
class Validity:
    """When the certificate at `place`, a path or an address, counts: between two moments in UTC."""

    place: str
    begins: datetime
    ends: datetime

    def complaint(self) -> str | None:
        """None while it counts, else since when it does not, or from when on."""
        now = datetime.now(UTC)
        if now > self.ends:
            return f"the certificate {self.place} ended at {_minute(self.ends)}; once a new one is there, it counts by itself"
        if now < self.begins:
            return (
                f"the certificate {self.place} counts from {_minute(self.begins)} on, and here it is {_minute(now)}: "
                "is this machine's clock right?"
            )
        return None


@dataclass(frozen=True)
class TlsFiles:
    """Paths of PEM files: our certificate with its chain, its key, and the CA certificates that vouch for the other side."""

    certificate: Path | None
    key: Path | None
    ca: Path | None

    def stamp(self) -> tuple[int, ...]:
        """Another one when a file changed; zero stands for a file that is not there."""
        return tuple(path.stat().st_mtime_ns if path and path.exists() else 0 for path in (self.certificate, self.key, self.ca))

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Certificate, key and CA, which fit together.

        Raises:
            Unavailable: one cannot be read or used, or the key is not the certificate's; names the file.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        at = self.certificate
        try:
            if self.certificate and self.key:
                context.load_cert_chain(self.certificate, self.key)
            at = self.ca
            if self.ca:
                context.load_verify_locations(self.ca)
            return _content(self.certificate), _content(self.key), _content(self.ca)
        except ssl.SSLError as error:
            pair = f" with the key {self.key}" if at == self.certificate else ""
            raise Unavailable(f"the certificate {at} cannot be used{pair}: {error.reason or error}") from None
        except OSError as error:
            raise Unavailable(f"TLS: {error.filename or at} cannot be read: {error.strerror}") from None

    def validities(self) -> Iterator[Validity]:
        """Those of our certificate and of the CA, as the files are now; a file that cannot be read has none."""
        for path, is_ca in ((self.certificate, False), (self.ca, True)):
            try:
                if path:
                    yield validity_of(path.read_bytes(), str(path), one_is_enough=is_ca)
            except (OSError, ValueError):
                continue

    def complaint(self) -> str | None:
        """None while both count, else which does not."""
        return next(filter(None, (each.complaint() for each in self.validities())), None)


def validity_of(pem: bytes, place: str, *, one_is_enough: bool = False) -> Validity:
    """When the certificates in `pem` count: all of them, as the links of a chain, or one of several CAs that take turns.

    Raises:
        ValueError: there is none.
    """
    found = x509.load_pem_x509_certificates(pem)
    begins, ends = [each.not_valid_before_utc for each in found], [each.not_valid_after_utc for each in found]
    return Validity(place, min(begins), max(ends)) if one_is_enough else Validity(place, max(begins), min(ends))


class CertificateTimes:
    """The validity of files as metrics, read when somebody asks for them, so that new files show at once."""

    def __init__(self, files: TlsFiles | None, registry: CollectorRegistry) -> None:
        self._files = files
        registry.register(self)

    def collect(self) -> list[Metric]:
        """Two gauges by file, without values where there is no TLS."""
        begins = GaugeMetricFamily(
            "agentflux_certificate_not_before_timestamp_seconds", "When a file's certificates begin to count.", labels=["file"]
        )
        ends = GaugeMetricFamily(
            "agentflux_certificate_not_after_timestamp_seconds", "When a file's certificates cease to count.", labels=["file"]
        )
        for each in self._files.validities() if self._files else ():
            begins.add_metric([each.place], each.begins.timestamp())
            ends.add_metric([each.place], each.ends.timestamp())
        return [begins, ends]


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """For a server with `files`; clients need a certificate of theirs if there is a CA. Changed files count from the next
    connection on; while they do not fit together, the old ones do.

    Raises:
        Unavailable: the files cannot be used.
    """
    configuration, stamp, told = _configuration(files), files.stamp(), _tell(files, None)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal stamp, told
        # From a thread of gRPC's, at each handshake; None keeps what is there.
        told = _tell(files, told)
        if (now := files.stamp()) == stamp:
            return None
        try:
            fresh = _configuration(files)
        except Unavailable as error:
            log.error("the changed certificate is not used", error=error.message)
            return None
        stamp = now
        log.info("the changed certificate is used from now on", certificate=str(files.certificate))
        return fresh

    # The stubs forget that the function may return None.
    return grpc.dynamic_ssl_server_credentials(configuration, fetch, files.ca is not None)  # type: ignore[arg-type]


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """For a client with `files`; without a CA those that gRPC comes with vouch for the server.

    Raises:
        Unavailable: the files cannot be used.
    """
    certificate, key, ca = files.read()
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    certificate, key, ca = files.read()
    assert certificate is not None, "a server has a certificate"
    assert key is not None, "a server has a key"
    return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=ca)


def _tell(files: TlsFiles, told: str | None) -> str | None:
    """Logs what is wrong with the certificates unless it was `told` already; returns it."""
    wrong = files.complaint()
    if wrong and wrong != told:
        log.error("clients cannot connect", error=wrong)
    return wrong


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%MZ}"


def _content(path: Path | None) -> bytes | None:
    return path.read_bytes() if path else None
