"""Settings of the index server."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from shashin.objectstore.open import known_forms
from shashin.runtime.settings import ModelSpaceSettings


class IndexServerSettings(ModelSpaceSettings):
    """What the index server can be told."""

    grpc_host: str = Field("127.0.0.1", description="Address that IndexService listens on.")
    grpc_port: int = Field(
        0, ge=0, le=65535, description="Port of IndexService; 0 takes a free one."
    )
    tier: str = Field("hourly", description="Tier whose pointer is followed.")
    repository: str = Field(description=f"Model repository that shards come from: {known_forms()}.")
    work_folder: Path = Field(
        description="Folder for the shards that are mapped; its content may be lost."
    )
    poll_seconds: float = Field(
        0.5, gt=0, description="Seconds between two looks at the tier's pointer."
    )
