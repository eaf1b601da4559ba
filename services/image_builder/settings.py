"""Settings of the image builder."""

from __future__ import annotations

from pydantic import Field

from shashin.discovery.settings import DiscoverySettings
from shashin.objectstore.settings import RepositorySettings
from shashin.runtime.settings import ModelSettings


class ImageBuilderSettings(DiscoverySettings, ModelSettings, RepositorySettings):
    """Settings of the image builder."""

    resync_seconds: float = Field(
        10.0,
        gt=0,
        description="Seconds between checks of every served manifest, and between reads of the "
        "repository when nothing wakes the builder.",
    )
    hand_over_after_seconds: float = Field(
        3.0,
        ge=0,
        description="Seconds that a shard stays in its tier once an index server of an older tier "
        "holds all of its offsets; must exceed the router's SHASHIN_DEADLINE_MS.",
    )
    retention_days: float = Field(
        0.0,
        ge=0,
        description="Days after which a shard is no longer served, counted from the end of its "
        "bucket; 0 serves everything for ever.",
    )
