"""Settings of the image builder."""

from __future__ import annotations

from pydantic import Field

from shashin.runtime.settings import ModelSettings


class ImageBuilderSettings(ModelSettings):
    """Settings of the image builder."""

    repository: str = Field(
        description="Model repository to watch: file:///ABSOLUTE/FOLDER or gs://BUCKET/FOLDER."
    )
    resync_seconds: float = Field(
        10.0,
        gt=0,
        description="Seconds between reads of the repository when nothing wakes the builder.",
    )
