"""Settings of the embedder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from services.embedder.query_decoder import QueryLimits
from shashin.errors import UserError
from shashin.kafka.settings import ConsumerSettings
from shashin.model.loading import published_id
from shashin.model.settings import EmbeddingSettings
from shashin.objectstore.open import known_forms, open_object_store
from shashin.redaction import without_user_names

WORKER, SERVER = "worker", "server"


class EmbedderSettings(ConsumerSettings, EmbeddingSettings):
    """Settings of the embedder."""

    repository: str = Field(
        "",
        description="URI of the model repository's object store, where SHASHIN_MODEL is repository:ID: "
        f"{known_forms()}. Not used otherwise.",
    )
    model_folder: Path | None = Field(
        None,
        description="Folder where the checkpoint of a model of the repository is kept, so that the next start "
        "only verifies it. Several processes may share it. Without it, each start downloads it.",
    )
    roles: str = Field(
        "worker,server",
        description="Roles to run, one or both: worker embeds listings, server embeds queries.",
    )
    grpc_host: str = Field("127.0.0.1", description="Address that EmbedService listens on.")
    grpc_port: int = Field(
        0, ge=0, le=65535, description="Port of EmbedService; 0 takes a free one."
    )
    batch_records: int = Field(
        32, ge=1, le=10_000, description="Maximum listings per batch of the worker."
    )
    waiting_photos: int = Field(
        256,
        ge=1,
        description="Maximum query photos that wait or are under way; more are rejected, to bound "
        "memory.",
    )
    waiting_bytes: int = Field(
        256 * 1024 * 1024,
        ge=32 * 1024 * 1024,
        description="Maximum size of these photos as they were sent, in bytes; more are rejected.",
    )
    query_decoders: int = Field(
        2,
        ge=1,
        le=64,
        description="Threads that decode query photos; each can use a full core. Listings have a "
        "thread of their own.",
    )
    query_decode_bytes: int = Field(
        256 * 1024 * 1024,
        ge=64 * 1024 * 1024,
        description="Maximum memory of all decodes of query photos under way, in bytes. A photo "
        "waits until there is room for it, and one that needs more than all of it is refused.",
    )

    mirror_queries: bool = Field(
        False,
        description="Whether the vector of a query photo is the mean of the photo and its mirror image: finds "
        "what was photographed from the other side, for twice the time at the model.",
    )

    query_zooms: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether a query photo without a crop box is also searched for at its middle 70 % and 50 %, with "
        "the best score counting: finds what is small in its photo, for three times the time at the model. auto: "
        "where that helps the model.",
    )

    def zooms_with(self, *, model_zooms: bool) -> bool:
        """Return whether query photos are zoomed, with a model for which that helps or not."""
        return model_zooms if self.query_zooms == "auto" else self.query_zooms == "on"

    def query_limits(self) -> QueryLimits:
        """Return the limits of query photos."""
        return QueryLimits(
            self.waiting_photos, self.waiting_bytes, self.query_decoders, self.query_decode_bytes
        )

    @property
    def published_model(self) -> str | None:
        """The id of the model that the repository has; None if it comes from elsewhere."""
        return published_id(self.model)

    @model_validator(mode="after")
    def _published_model_has_a_repository(self) -> Self:
        # The URI is looked at only where it is needed: all services may have it in their environment.
        if self.published_model is not None:
            if not self.repository:
                raise ValueError(
                    f"SHASHIN_MODEL={self.model!r}: a model of the model repository, but "
                    "SHASHIN_REPOSITORY is not set"
                )
            try:
                open_object_store(self.repository)
            except UserError as error:
                raise ValueError(
                    f"SHASHIN_REPOSITORY: {without_user_names(error.message)}"
                ) from None
        return self

    @field_validator("roles")
    @classmethod
    def _roles_are_known(cls, value: str) -> str:
        parse_roles(value)
        return value


def parse_roles(text: str) -> frozenset[str]:
    """Return the roles in a list such as ``worker,server``.

    Raises:
        ValueError: when the list is empty or has an unknown role.
    """
    roles = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not roles or roles - {WORKER, SERVER}:
        raise ValueError("expected worker, server, or worker,server")
    return roles
