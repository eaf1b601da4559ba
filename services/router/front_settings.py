"""Settings of the router's port: who may call, how, and how much."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class FrontSettings(BaseSettings):
    """Settings of what every caller meets first."""

    model_config = SettingsConfigDict(env_prefix="SHASHIN_", extra="ignore", frozen=True)

    tls_certificate_file: Path | None = Field(
        None,
        description="Certificate chain of SearchService in PEM, the server's own first; empty serves without "
        "TLS. Certificate, key and authorities are read again when they change.",
    )
    tls_key_file: Path | None = Field(
        None, description="Private key of that certificate in PEM, not encrypted."
    )
    tls_client_ca_file: Path | None = Field(
        None,
        description="Certificates of authorities in PEM; if set, every client needs a certificate of one of "
        "them.",
    )
    accepted_keys_file: Path | None = Field(
        None,
        description="File of the API keys that are accepted, which `shashin keys` edits; empty asks for no "
        "key. It is read again when it changes.",
    )
    renew_seconds: float = Field(
        5.0,
        gt=0,
        le=3600,
        description="Seconds between looks at whether certificates or API keys have changed.",
    )
    max_request_bytes: int = Field(
        17 * 1024 * 1024,
        ge=64 * 1024,
        le=1 << 30,
        description="Maximum size of a request: a photo of 16 MiB, and the rest.",
    )
    calls_per_connection: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Maximum calls at once on a connection; further ones wait in the client.",
    )
    connection_idle_seconds: float = Field(
        900.0, ge=1, le=86_400, description="Seconds until a connection without calls is closed."
    )
    connection_age_seconds: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description="Seconds until a connection is closed, once its calls have ended, so that clients "
        "look for routers that have joined; 0 for never.",
    )
    reflection: bool = Field(
        True, description="Whether SearchService describes itself, to grpcurl for example."
    )
    shed_load: bool = Field(
        True, description="Whether calls are refused that could not be answered in time."
    )
    shed_wait_seconds: float = Field(
        0.2,
        gt=0,
        le=60,
        description="Seconds that a call may wait until the router looks at it; beyond, a share of the calls "
        "is refused. 0.01 keeps the latency of what is admitted low at any load, and refuses bursts that "
        "could have waited.",
    )
    shed_answer_seconds: float = Field(
        0.4,
        gt=0,
        le=60,
        description="Seconds within which three of four queries should be answered; while fewer are, fewer "
        "queries are in progress at once. Queries that take long by themselves have three times that.",
    )
    max_work: float = Field(
        1000.0,
        ge=16,
        le=1e6,
        description="Maximum queries in progress at once: one by a vector counts as 1, a photo as 4 and "
        "another for each 256 KiB.",
    )

    @field_validator(
        "tls_certificate_file",
        "tls_key_file",
        "tls_client_ca_file",
        "accepted_keys_file",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return value or None

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError(
                "SHASHIN_TLS_CERTIFICATE_FILE and SHASHIN_TLS_KEY_FILE belong together: expected both or "
                "neither"
            )
        if self.tls_client_ca_file is not None and self.tls_certificate_file is None:
            raise ValueError(
                "SHASHIN_TLS_CLIENT_CA_FILE is set without SHASHIN_TLS_CERTIFICATE_FILE: clients have "
                "certificates only with TLS"
            )
        return self
