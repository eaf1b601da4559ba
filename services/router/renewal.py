"""Certificates and API keys of the router: read at the start, and again when their files change."""

from __future__ import annotations

import time
from pathlib import Path

from services.router.front_settings import FrontSettings
from shashin.access.api_key import StoredKey
from shashin.access.key_file import read_keys
from shashin.access.keyring import Keyring
from shashin.errors import SettingsError, UserError
from shashin.metrics import access as metrics
from shashin.rpc.server_tls import ServerCertificates, TlsFiles
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.runtime.watched_files import WatchedFiles

_CERTIFICATES, _KEYS = "certificates", "API keys"

log = get_logger(__name__)


class Credentials:
    """What the router proves itself with, and what it accepts."""

    def __init__(self, settings: FrontSettings) -> None:
        """Read all files.

        Raises:
            SettingsError: naming the setting whose file is wrong.
        """
        self._every_seconds = settings.renew_seconds
        self.certificates = _certificates(settings)
        if self.certificates is not None:
            metrics.EXPIRES.set(self.certificates.expires_at or 0.0)
        self.keyring: Keyring | None = None
        self._keys_file = settings.accepted_keys_file
        if self._keys_file is not None:
            self._watched = WatchedFiles([self._keys_file])
            self._watched.changed()
            self.keyring = Keyring(_keys(self._keys_file))

    def loop(self) -> Loop:
        """Return the loop that reads the files again."""
        return Loop("renewal of credentials", self._run)

    async def _run(self, loop: LoopScope) -> None:
        while await loop.sleep(self._every_seconds):
            self._renew_certificates(loop)
            self._renew_keys(loop)

    def _renew_certificates(self, loop: LoopScope) -> None:
        if self.certificates is None:
            return
        try:
            renewed = self.certificates.renew()
        except UserError as error:
            _keep(loop, _CERTIFICATES, error)
            return
        if renewed:
            _take(loop, _CERTIFICATES)
            metrics.EXPIRES.set(self.certificates.expires_at or 0.0)
        if (at := self.certificates.expires_at) is not None and at < time.time():
            loop.degraded(_CERTIFICATES, "the certificate has expired: renew it")

    def _renew_keys(self, loop: LoopScope) -> None:
        if self.keyring is None or self._keys_file is None:
            return
        if not self._watched.changed():
            self.keyring.count_valid()
            return
        try:
            keys = read_keys(self._keys_file).keys
        except UserError as error:
            _keep(loop, _KEYS, error)
        else:
            self.keyring.replace(keys)
            _take(loop, _KEYS)


def _keep(loop: LoopScope, what: str, error: UserError) -> None:
    loop.degraded(what, f"those of before are used: {error.message}")
    metrics.RENEWALS.labels(what, "failed").inc()
    log.error("could not renew: keeping those of before", what=what, error=error.message)


def _take(loop: LoopScope, what: str) -> None:
    loop.clear(what)
    metrics.RENEWALS.labels(what, "renewed").inc()
    log.info("renewed", what=what)


def _certificates(settings: FrontSettings) -> ServerCertificates | None:
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return None
    files = TlsFiles(
        settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file
    )
    try:
        return ServerCertificates(files)
    except UserError as error:
        names = ["SHASHIN_TLS_CERTIFICATE_FILE", "SHASHIN_TLS_KEY_FILE"]
        if files.client_ca is not None and str(files.client_ca) in error.message:
            names = ["SHASHIN_TLS_CLIENT_CA_FILE"]
        raise SettingsError(f"{' and '.join(names)}: {error.message}") from None


def _keys(path: Path) -> tuple[StoredKey, ...]:
    try:
        return read_keys(path).keys
    except UserError as error:
        raise SettingsError(f"SHASHIN_ACCEPTED_KEYS_FILE: {error.message}") from None
