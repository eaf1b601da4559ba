"""Settings of the downloader."""

from __future__ import annotations

from pydantic import Field

from shashin.kafka.settings import ConsumerSettings
from shashin.photo_sources.settings import PhotoSettings


class DownloaderSettings(ConsumerSettings, PhotoSettings):
    """Settings of the downloader."""

    batch_records: int = Field(64, ge=1, le=10_000, description="Maximum listing events per batch.")
    remembered_listings: int = Field(
        200_000,
        ge=1,
        description="Listings whose newest version is remembered, to reject a version that goes "
        "backwards; about 200 bytes each.",
    )
