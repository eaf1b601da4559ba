"""The setting of a service that works with the model repository."""

from __future__ import annotations

from pydantic import Field, field_validator

from shashin.objectstore.open import known_forms, open_object_store
from shashin.runtime.settings import ServiceSettings, validated_by


class RepositorySettings(ServiceSettings):
    """Where the model repository is."""

    repository: str = Field(
        description=f"URI of the model repository's object store: {known_forms()}."
    )

    @field_validator("repository")
    @classmethod
    def _repository_can_be_opened(cls, value: str) -> str:
        return validated_by(open_object_store, value)
