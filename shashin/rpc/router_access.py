"""What a client of the router proves itself with, and how it opens a channel: for commands and services."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

import grpc
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shashin.rpc.channel import open_channel
from shashin.rpc.router_address import RouterAddress
from shashin.rpc.sent_key import SentKey, content_of
from shashin.runtime.settings import load_settings

KEY_VARIABLES = "SHASHIN_API_KEY or SHASHIN_API_KEY_FILE has the key"


class RouterAccess(BaseSettings):
    """Certificates and API key of a client of the router."""

    model_config = SettingsConfigDict(env_prefix="SHASHIN_", extra="ignore", frozen=True)

    router_ca_file: Path | None = Field(
        None,
        description="Certificates in PEM of the authorities that routers at `grpcs://` may have theirs of; "
        "empty trusts those that the system does.",
    )
    router_certificate_file: Path | None = Field(
        None,
        description="Certificate chain of this client in PEM, for routers that ask for one.",
    )
    router_key_file: Path | None = Field(
        None, description="Private key of that certificate, in PEM."
    )
    api_key: SecretStr | None = Field(None, description="API key that is sent to routers.")
    api_key_file: Path | None = Field(
        None,
        description="File with the API key instead; it is read again when it changes.",
    )

    @field_validator(
        "router_ca_file",
        "router_certificate_file",
        "router_key_file",
        "api_key",
        "api_key_file",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return value or None

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> Self:
        if (self.router_certificate_file is None) != (self.router_key_file is None):
            raise ValueError(
                "SHASHIN_ROUTER_CERTIFICATE_FILE and SHASHIN_ROUTER_KEY_FILE belong together: expected both "
                "or neither"
            )
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("expected one of SHASHIN_API_KEY and SHASHIN_API_KEY_FILE, not both")
        return self


_given: ContextVar[RouterAccess | None] = ContextVar("access to the router", default=None)


@contextmanager
def using(access: RouterAccess) -> Iterator[None]:
    """Make it the access of clients that are made while the context is open."""
    token = _given.set(access)
    try:
        yield
    finally:
        _given.reset(token)


def given_access() -> RouterAccess:
    """Return the access in use; that of the environment if none is.

    Raises:
        SettingsError: naming a variable that is invalid.
    """
    return _given.get() or load_settings(RouterAccess)


def open_router_channel(
    address: str,
    access: RouterAccess,
    *,
    retried_service: str = "",
    wait_for_ready: bool = False,
) -> grpc.aio.Channel:
    """Open a channel to the routers at an address; it connects on the first call.

    ``grpcs://NAME:PORT`` is TLS with all routers that the name has. Any other form is plaintext.

    Raises:
        UserError: if the address is malformed, or a file cannot be read.
    """
    routers = RouterAddress.parsed(address)
    key = SentKey(
        access.api_key.get_secret_value() if access.api_key is not None else "",
        access.api_key_file,
        named="SHASHIN_API_KEY_FILE",
    )
    return open_channel(
        routers.target,
        retried_service=retried_service,
        wait_for_ready=wait_for_ready,
        credentials=_credentials(access) if routers.with_tls else None,
        interceptors=[_KeySender(key)] if key.given else [],
    )


def _credentials(access: RouterAccess) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        content_of("SHASHIN_ROUTER_CA_FILE", access.router_ca_file),
        content_of("SHASHIN_ROUTER_KEY_FILE", access.router_key_file),
        content_of("SHASHIN_ROUTER_CERTIFICATE_FILE", access.router_certificate_file),
    )


class _KeySender(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc, unused-ignore]
    """Adds the key to each call."""

    def __init__(self, key: SentKey) -> None:
        self._key = key

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Send a call with the key."""
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()))
        metadata.add("authorization", f"Bearer {self._key.current()}")
        details = grpc.aio.ClientCallDetails(
            client_call_details.method,
            client_call_details.timeout,
            metadata,
            client_call_details.credentials,
            client_call_details.wait_for_ready,
        )
        return await continuation(details, request)
