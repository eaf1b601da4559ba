"""The setting of a service that works with the model repository."""

from __future__ import annotations

from pydantic import Field, field_validator

from shashin.errors import UserError
from shashin.objectstore.open import known_forms, open_object_store
from shashin.runtime.settings import ServiceSettings


class RepositorySettings(ServiceSettings):
    """Where the model repository is."""

    repository: str = Field(
        description=f"URI of the model repository's object store: {known_forms()}."
    )

    @field_validator("repository")
    @classmethod
    def _repository_can_be_opened(cls, value: str) -> str:
        try:
            open_object_store(value)
        except UserError as error:
            raise ValueError(error.message) from None
        return value
