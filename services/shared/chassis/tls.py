"""TLS for gRPC from files: who we are, whom we believe, and new files taken up without a restart."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from services.shared.contracts.errors import Unavailable

log = structlog.get_logger()


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


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """For a server with `files`; clients need a certificate of theirs if there is a CA. Changed files count from the next
    connection on; while they do not fit together, the old ones do.

    Raises:
        Unavailable: the files cannot be used.
    """
    configuration, stamp = _configuration(files), files.stamp()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal stamp
        # From a thread of gRPC's, at each handshake; None keeps what is there.
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


def _content(path: Path | None) -> bytes | None:
    return path.read_bytes() if path else None
