"""What both clients are made from: an address, credentials, a timeout and a policy of retries."""

from __future__ import annotations

from abc import ABC, abstractmethod

from shashin.client.calls import Calls
from shashin.client.connection import Connection, FilePath
from shashin.client.retrying import DEFAULT_RETRIES, RetryPolicy


class ConfiguredClient(ABC):
    """A client before it is of threads or of asyncio."""

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        api_key_file: FilePath | None = None,
        ca_file: FilePath | None = None,
        certificate_file: FilePath | None = None,
        key_file: FilePath | None = None,
        server_name: str | None = None,
        timeout: float = 10.0,
        retries: RetryPolicy = DEFAULT_RETRIES,
    ) -> None:
        """Use the routers at an address; nothing is connected before the first call.

        Args:
            address: ``HOST:PORT``, ``dns:///NAME:PORT`` for all routers that a name has, or ``IP:PORT,IP:PORT``;
                ``grpcs://`` before it is TLS.
            api_key: The key that is sent with each call.
            api_key_file: A file with the key instead; it is read again when it changes.
            ca_file: Certificates in PEM of the authorities that routers may have theirs of; by default those
                that gRPC comes with.
            certificate_file: Certificate chain of this client in PEM, for routers that ask for one.
            key_file: Private key of that certificate, in PEM.
            server_name: The name in the routers' certificates, if it is not that of the address.
            timeout: Seconds that a call may take with all its retries, unless it says otherwise.
            retries: When failed calls are sent again.

        Raises:
            UserError: if the address is malformed, a file cannot be read, or arguments contradict each other.
        """
        self._connection = Connection(
            address,
            api_key=api_key,
            api_key_file=api_key_file,
            ca_file=ca_file,
            certificate_file=certificate_file,
            key_file=key_file,
            server_name=server_name,
        )
        self._timeout = timeout
        self._calls = Calls(retries)
        self._set_up()

    @abstractmethod
    def _set_up(self) -> None:
        """Prepare what the client is opened with; called once."""

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout
