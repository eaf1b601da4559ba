"""The certificates of a server: read from files, and again when these change.

Each handshake uses what the files had last, so that connections which exist go on, and new ones get the new
certificate. What is wrong never replaces what works.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    """The certificates that servers use; ``renew`` has to be called now and then."""

    def __init__(self, files: TlsFiles) -> None:
        """Read the files.

        Raises:
            UserError: if one cannot be read or is no certificate or key, or if these do not belong together.
        """
        self._files = files
        self._watched = WatchedFiles(files.paths)
        self._watched.changed()
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}
        """With what the files have now, by protocols."""
        self.expires_at = self._read([()])
        """When the server's certificate expires, in Unix seconds; None if it is not known."""

    def context(self, *protocols: str) -> ssl.SSLContext:
        """Return what a server of these protocols (ALPN) listens with, also once the files have changed.

        Raises:
            UserError: as the constructor does.
        """
        if protocols not in self._contexts:
            self._read([*self._contexts, protocols])
        listening = _context(self._files, protocols)

        def current(handshake: ssl.SSLObject, _name: str | None, _own: ssl.SSLContext) -> None:
            handshake.context = self._contexts[protocols]

        listening.sni_callback = current
        return listening

    def renew(self) -> bool:
        """Read the files again if they have changed; returns whether they had.

        Raises:
            UserError: if one is wrong, the first time that it is found so: the certificates of before stay.
        """
        if not self._watched.changed():
            return False
        self.expires_at = self._read(list(self._contexts))
        return True

    def _read(self, protocols: Sequence[tuple[str, ...]]) -> float | None:
        """Make the contexts anew from the files; returns when the certificate expires."""
        before = self._watched.stamp()
        contexts = {names: _context(self._files, names) for names in protocols}
        # Without authorities: it is looked at by a client that has no certificate.
        alone = _context(TlsFiles(self._files.certificate, self._files.key), ())
        expires_at = expiry_of(alone, self._files.certificate)
        if self._watched.stamp() != before:
            raise UserError(f"{self._files.certificate} was being replaced: it is read again")
        self._contexts = contexts
        return expires_at


def _context(files: TlsFiles, protocols: Sequence[str]) -> ssl.SSLContext:
    """Return a context of a server.

    Raises:
        UserError: naming the file that is wrong.
    """
    for path in files.paths:
        try:
            path.open("rb").close()
        except OSError as error:
            raise UserError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if protocols:
        context.set_alpn_protocols(list(protocols))
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
        context.verify_mode = ssl.CERT_REQUIRED
        # A session that is resumed would not be verified again, by authorities that may have changed.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context
