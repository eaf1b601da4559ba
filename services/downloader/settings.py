"""Settings of the downloader."""

from __future__ import annotations

from pydantic import Field

from shashin.kafka.settings import ConsumerSettings
from shashin.photo_sources.settings import PhotoSettings
from shashin.thumbnails.settings import ThumbnailSettings


class DownloaderSettings(ConsumerSettings, PhotoSettings, ThumbnailSettings):
    """Settings of the downloader."""

    batch_records: int = Field(64, ge=1, le=10_000, description="Maximum listing events per batch.")
    remembered_listings: int = Field(
        200_000,
        ge=1,
        description="Listings whose newest version is remembered, to reject a version that goes "
        "backwards; about 200 bytes each.",
    )
    thumbnail_queue_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1024,
        description="Maximum memory of thumbnails that wait to be written to SHASHIN_THUMBNAILS, in bytes. "
        "What does not fit is dropped and counted: a slow store slows no listing.",
    )
