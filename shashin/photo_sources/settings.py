"""Settings of a process that fetches photos."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from shashin.originals.settings import CacheSettings
from shashin.photo_sources.allow_list import (
    HostPattern,
    Network,
    parse_buckets,
    parse_hosts,
    parse_networks,
)
from shashin.runtime.settings import parse_folders, validated_by


class PhotoSettings(CacheSettings):
    """Where photos may be read from, and what that may take."""

    photo_roots: str = Field(
        "",
        description="Folders that file:// photos may be read from: one absolute path, or a JSON "
        'list such as `["/srv/photos", "/mnt/more"]`; empty: no file is read.',
    )
    photo_hosts: str = Field(
        "",
        description="Hosts that https:// photos may be read from, comma-separated: "
        "`img.example.com`, `*.example.com` for every host below it, or `img.example.com:8443`; "
        "empty: none. Redirects may only lead to these.",
    )
    photo_private_networks: str = Field(
        "",
        description="Private networks that these hosts may be in, such as `10.1.0.0/16`, "
        "comma-separated; empty: only public addresses are connected to.",
    )
    photo_buckets: str = Field(
        "",
        description="Buckets that photos may be read from, comma-separated: `s3://BUCKET` or "
        "`gs://BUCKET`; empty: none. Credentials and endpoints are found as by the clouds' own "
        "tools.",
    )
    photo_connect_seconds: float = Field(
        5.0, gt=0, le=50, description="Seconds to wait for a connection to a host of photos."
    )
    photo_seconds: float = Field(
        30.0,
        gt=0,
        le=50,
        description="Seconds that downloading one photo from a host or bucket may take, "
        "redirects and retries included.",
    )
    concurrency: int = Field(
        64, ge=1, le=1024, description="Maximum photos that are downloaded at the same time."
    )
    host_concurrency: int = Field(
        16,
        ge=1,
        le=1024,
        description="Maximum photos that are downloaded from one host or bucket at the same time.",
    )
    original_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1024,
        description="Maximum memory of originals, in bytes, from their download until their "
        "thumbnails are made; at least SHASHIN_MAX_BYTES. A photo waits until there is room for "
        "its size, or for SHASHIN_MAX_BYTES while its size is not known.",
    )
    confirm_after_seconds: float = Field(
        86_400.0,
        ge=0,
        description="Seconds for which a cached photo is used without asking its source whether "
        "it has changed. For a listing that was updated, the source is always asked.",
    )
    decoders: int = Field(
        1, ge=1, le=64, description="Threads that decode photos; each can use a full core."
    )
    decode_bytes: int = Field(
        512 * 1024 * 1024,
        ge=64 * 1024 * 1024,
        description="Maximum memory of all decodes under way, in bytes. A photo waits until there "
        "is room for it, and one that needs more than all of it is refused.",
    )
    max_bytes: int = Field(
        16 * 1024 * 1024, ge=1024, description="Maximum size of a photo, in bytes."
    )

    @field_validator("photo_hosts")
    @classmethod
    def _are_hosts(cls, photo_hosts: str) -> str:
        return validated_by(parse_hosts, photo_hosts)

    @field_validator("photo_private_networks")
    @classmethod
    def _are_networks(cls, photo_private_networks: str) -> str:
        return validated_by(parse_networks, photo_private_networks)

    @field_validator("photo_buckets")
    @classmethod
    def _are_buckets(cls, photo_buckets: str) -> str:
        return validated_by(parse_buckets, photo_buckets)

    @field_validator("max_bytes")
    @classmethod
    def _fits_the_memory_of_originals(cls, max_bytes: int, info: ValidationInfo) -> int:
        limit = info.data.get("original_bytes", max_bytes)
        if max_bytes > limit:
            raise ValueError(f"it is more than SHASHIN_ORIGINAL_BYTES={limit}: raise that as well")
        return max_bytes

    @field_validator("photo_roots")
    @classmethod
    def _are_folders(cls, photo_roots: str) -> str:
        return validated_by(parse_folders, photo_roots)

    def roots(self) -> tuple[Path, ...]:
        """Return the folders that file:// photos may be read from."""
        return parse_folders(self.photo_roots)

    def hosts(self) -> tuple[HostPattern, ...]:
        """Return the hosts that https:// photos may be read from."""
        return parse_hosts(self.photo_hosts)

    def private_networks(self) -> tuple[Network, ...]:
        """Return the private networks that these may be in."""
        return parse_networks(self.photo_private_networks)

    def buckets(self) -> tuple[str, ...]:
        """Return the buckets that photos may be read from."""
        return parse_buckets(self.photo_buckets)
