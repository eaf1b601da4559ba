"""How a client reaches routers: their address, what proves who they and it are, and gRPC's options."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import grpc

from shashin.client.failures import Failure, failure_of
from shashin.errors import UserError
from shashin.rpc.error_details import KEY
from shashin.rpc.router_address import RouterAddress
from shashin.rpc.sent_key import SentKey, content_of
from shashin.rpc.server_limits import MAX_MESSAGE_BYTES

FilePath = str | PathLike[str]

_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Calls take turns among the routers that respond. They are sent again by shashin.client.calls only:
    # attempts of both would multiply.
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # The router says how large a request may be.
    ("grpc.max_send_message_length", -1),
    # A router that no longer responds is noticed between calls; it accepts pings every 10 seconds.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Reconnect to a restarted router within a second instead of two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # Clients in one process do not share connections.
    ("grpc.use_local_subchannel_pool", 1),
)


class Connection:
    """What channels to some routers are opened with."""

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None,
        api_key_file: FilePath | None,
        ca_file: FilePath | None,
        certificate_file: FilePath | None,
        key_file: FilePath | None,
        server_name: str | None,
    ) -> None:
        """Read the files, and connect to nothing.

        Raises:
            UserError: if the address is malformed, a file cannot be read, or arguments contradict each other.
        """
        self.address = address
        routers = RouterAddress.parsed(address)
        self._target = routers.target
        if api_key and api_key_file is not None:
            raise UserError("expected one of api_key and api_key_file, not both")
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise UserError("api_key has characters that no key has; expected one as it was issued")
        if (certificate_file is None) != (key_file is None):
            raise UserError(
                "certificate_file and key_file belong together: expected both or neither"
            )
        named = {
            "ca_file": ca_file,
            "certificate_file": certificate_file,
            "key_file": key_file,
            "server_name": server_name,
        }
        if not routers.with_tls and (given := [n for n, value in named.items() if value]):
            raise UserError(
                f"{' and '.join(given)} given for {address!r}, which is not TLS: expected grpcs://HOST:PORT"
            )
        if routers.with_tls and routers.several and not server_name:
            raise UserError(
                f"{address!r} lists several routers: expected server_name with the name that their "
                "certificates have, or grpcs://NAME:PORT with a name that has all of them"
            )
        self._options = list(_OPTIONS)
        if server_name:
            self._options += [
                ("grpc.ssl_target_name_override", server_name),
                ("grpc.default_authority", server_name),
            ]
        self._credentials = None
        if routers.with_tls:
            self._credentials = grpc.ssl_channel_credentials(
                content_of("ca_file", _path(ca_file)),
                content_of("key_file", _path(key_file)),
                content_of("certificate_file", _path(certificate_file)),
            )
        self._key = SentKey(api_key or "", _path(api_key_file), named="api_key_file")

    def channel(self) -> grpc.Channel:
        """Open a channel for threads; it connects with the first call."""
        if self._credentials is None:
            return grpc.insecure_channel(self._target, options=self._options)
        return grpc.secure_channel(self._target, self._credentials, options=self._options)

    def async_channel(self) -> grpc.aio.Channel:
        """Open a channel for the running event loop; it connects with the first call."""
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._target, options=self._options)
        return grpc.aio.secure_channel(self._target, self._credentials, options=self._options)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call: the key as it is now."""
        return (("authorization", f"Bearer {self._key.current()}"),) if self._key.given else ()

    def failure(self, error: Any) -> Failure:
        """Return the failure of a call, from the error that gRPC raised."""
        details = next(
            (value for key, value in error.trailing_metadata() or () if key == KEY), None
        )
        return failure_of(error.code().name, error.details() or "", details, self.address)


def _path(given: FilePath | None) -> Path | None:
    return None if given is None else Path(given)
