"""Settings of the downloader."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from shashin.kafka.settings import ConsumerSettings


class DownloaderSettings(ConsumerSettings):
    """What the downloader can be told."""

    photo_roots: str = Field(
        "",
        description="Folders that file:// photos may lie in, separated as in PATH; none: no file "
        "is read.",
    )
    concurrency: int = Field(
        16,
        ge=1,
        le=1024,
        description="Photos that are fetched at a time: times SHASHIN_MAX_BYTES, the most memory "
        "that originals take.",
    )
    decoders: int = Field(
        1, ge=1, le=64, description="Threads that decode photos; one keeps a core busy."
    )
    max_bytes: int = Field(
        16 * 1024 * 1024, ge=1024, description="Largest photo that is read, in bytes."
    )
    batch_records: int = Field(
        64, ge=1, le=10_000, description="Listing events that are worked on at a time."
    )
    remembered_listings: int = Field(
        200_000,
        ge=1,
        description="Listings whose newest version is remembered, to refuse one that goes "
        "backwards; about 200 bytes each.",
    )

    def roots(self) -> tuple[Path, ...]:
        """Return the folders that file:// photos may lie in."""
        return tuple(Path(part) for part in self.photo_roots.split(os.pathsep) if part)
