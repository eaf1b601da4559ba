"""Settings of the image builder."""

from __future__ import annotations

from pydantic import Field

from shashin.objectstore.settings import RepositorySettings
from shashin.runtime.settings import ModelSettings


class ImageBuilderSettings(ModelSettings, RepositorySettings):
    """Settings of the image builder."""

    resync_seconds: float = Field(
        10.0,
        gt=0,
        description="Seconds between reads of the repository when nothing wakes the builder.",
    )
