"""Settings of a process that embeds photos."""

from __future__ import annotations

from pydantic import Field, field_validator

from shashin.model.loading import published_id
from shashin.runtime.settings import ServiceSettings, validated_by


class EmbeddingSettings(ServiceSettings):
    """The embedding model, and how it is called."""

    model: str = Field(
        "demo-v1",
        description="Embedding model: demo-v1, efficientnet-lite0, torchvision:NAME, repository:ID for one that "
        "`shashin model publish` has put into the model repository, or the path of a checkpoint.",
    )
    torch_threads: int = Field(1, ge=1, le=256, description="Threads per model call.")
    batch_photos: int = Field(
        16,
        ge=1,
        le=512,
        description="Maximum photos per model call; a query waits for at most one such call.",
    )

    @field_validator("model")
    @classmethod
    def _published_model_has_an_id(cls, value: str) -> str:
        return validated_by(published_id, value)
