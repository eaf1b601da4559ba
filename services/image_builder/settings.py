"""Settings of the image builder."""

from __future__ import annotations

from pydantic import Field

from shashin.objectstore.open import known_forms
from shashin.runtime.settings import ModelSettings


class ImageBuilderSettings(ModelSettings):
    """What the image builder can be told."""

    repository: str = Field(description=f"Model repository that is watched: {known_forms()}.")
    resync_seconds: float = Field(
        10.0, gt=0, description="Seconds between two looks at the repository without any news."
    )
