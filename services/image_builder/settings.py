"""Settings of the image builder."""

from __future__ import annotations

from pydantic import Field

from shashin.service.settings import ServiceSettings


class ImageBuilderSettings(ServiceSettings):
    """What the image builder can be told."""

    model_id: str = Field("demo-v1", description="Model whose shards are rolled out.")
    repository: str = Field(
        description="Model repository that is watched: file:///ABSOLUTE/FOLDER or gs://BUCKET/FOLDER."
    )
    resync_seconds: float = Field(
        10.0, gt=0, description="Seconds between two looks at the repository without any news."
    )
