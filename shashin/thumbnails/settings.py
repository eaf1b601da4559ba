"""The setting of a service that writes or reads thumbnails."""

from __future__ import annotations

from pydantic import Field, field_validator

from shashin.objectstore.open import known_forms, open_object_store
from shashin.runtime.settings import ServiceSettings, validated_by


class ThumbnailSettings(ServiceSettings):
    """Where thumbnails for web pages are."""

    thumbnails: str = Field(
        "",
        description="URI of the object store in which thumbnails for web pages are, by the hash of their "
        f"photo: {known_forms()}. Downloaders write them, routers read them. Empty: there are none.",
    )

    @field_validator("thumbnails")
    @classmethod
    def _thumbnails_can_be_opened(cls, value: str) -> str:
        return validated_by(open_object_store, value) if value else value
