"""Settings of the downloader."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from shashin.kafka.settings import ConsumerSettings
from shashin.runtime.settings import parse_folders, validated_by


class DownloaderSettings(ConsumerSettings):
    """Settings of the downloader."""

    photo_roots: str = Field(
        "",
        description="Folders that file:// photos may be read from: one absolute path, or a JSON "
        'list such as `["/srv/photos", "/mnt/more"]`; empty: no file is read.',
    )
    concurrency: int = Field(
        16,
        ge=1,
        le=1024,
        description="Photos fetched concurrently; times SHASHIN_MAX_BYTES, the maximum memory for "
        "originals.",
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
    batch_records: int = Field(64, ge=1, le=10_000, description="Maximum listing events per batch.")
    remembered_listings: int = Field(
        200_000,
        ge=1,
        description="Listings whose newest version is remembered, to reject a version that goes "
        "backwards; about 200 bytes each.",
    )

    @field_validator("photo_roots")
    @classmethod
    def _are_folders(cls, photo_roots: str) -> str:
        return validated_by(parse_folders, photo_roots)

    def roots(self) -> tuple[Path, ...]:
        """Return the folders that file:// photos may be read from."""
        return parse_folders(self.photo_roots)
