"""The certificates of a server: read from files, and again when these change.

gRPC asks for them at each handshake, so that connections which exist go on, and new ones get the new
certificate. What is wrong never replaces what works.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from shashin.errors import UserError
from shashin.rpc.certificate_dates import expiry_of
from shashin.runtime.watched_files import WatchedFiles


@dataclass(frozen=True)
class TlsFiles:
    """Files in PEM."""

    certificate: Path
    """The server's certificate, followed by those of intermediate authorities."""
    key: Path
    """Its private key, not encrypted."""
    client_ca: Path | None = None
    """The authorities of clients; if given, each client needs a certificate of one of them."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return tuple(filter(None, (self.certificate, self.key, self.client_ca)))


class ServerCertificates:
    """The certificates that a server uses; ``renew`` has to be called now and then."""

    def __init__(self, files: TlsFiles) -> None:
        """Read the files.

        Raises:
            UserError: if one cannot be read or is no certificate or key, or if these do not belong together.
        """
        self._files = files
        self._watched = WatchedFiles(files.paths)
        self._watched.changed()
        self._current, self.expires_at = _read(files, self._watched)
        """The second one in Unix seconds; None if it is not known."""
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Return what an HTTP server listens with: one object, which is renewed with the others."""
        if self._context is None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self._files.client_ca is not None:
                self._context.verify_mode = ssl.CERT_REQUIRED
            self._load()
        return self._context

    def _load(self) -> None:
        assert self._context is not None
        self._context.load_cert_chain(self._files.certificate, self._files.key)
        if self._files.client_ca is not None:
            self._context.load_verify_locations(self._files.client_ca)

    @property
    def credentials(self) -> grpc.ServerCredentials:
        """What a server listens with."""
        return grpc.dynamic_ssl_server_credentials(
            self._current,
            lambda: self._current,
            require_client_authentication=self._files.client_ca is not None,
        )

    def renew(self) -> bool:
        """Read the files again if they have changed; returns whether they had.

        Raises:
            UserError: if one is wrong, the first time that it is found so: the certificates of before stay.
        """
        if not self._watched.changed():
            return False
        self._current, self.expires_at = _read(self._files, self._watched)
        if self._context is not None:
            self._load()
        return True


def _read(
    files: TlsFiles, watched: WatchedFiles
) -> tuple[grpc.ServerCertificateConfiguration, float | None]:
    before = watched.stamp()
    expires_at = _check(files)
    try:
        certificate, key = files.certificate.read_bytes(), files.key.read_bytes()
        client_ca = None if files.client_ca is None else files.client_ca.read_bytes()
    except OSError as error:
        raise UserError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from None
    if watched.stamp() != before:
        raise UserError(f"{files.certificate} was being replaced: it is read again")
    return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca), expires_at


def _check(files: TlsFiles) -> float | None:
    """Check the files as gRPC would, which only logs what is wrong; returns when the certificate expires.

    Raises:
        UserError: naming the file that is wrong.
    """
    for path in files.paths:
        try:
            path.open("rb").close()
        except OSError as error:
            raise UserError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without the password, an encrypted key would be asked for on the terminal.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise UserError(
            f"{files.certificate} and {files.key} are not a certificate in PEM and its private key "
            f"({reason}): expected a chain that begins with the server's certificate, and the key of "
            "that, not encrypted"
        ) from None
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or str(error)
            raise UserError(
                f"{files.client_ca} has no certificates of authorities in PEM ({reason})"
            ) from None
    return expiry_of(context, files.certificate)
