"""Settings of the image builder."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from shashin.discovery.settings import DiscoverySettings
from shashin.errors import SettingsError
from shashin.index_images.garbage import MIN_GRACE_SECONDS
from shashin.objectstore.settings import RepositorySettings
from shashin.oci.image import MAX_LAYERS
from shashin.oci.references import parse_reference, parse_repository
from shashin.oci.settings import RegistrySettings
from shashin.runtime.settings import ModelSettings, validated_by


class ImageBuilderSettings(DiscoverySettings, ModelSettings, RepositorySettings, RegistrySettings):
    """Settings of the image builder."""

    resync_seconds: float = Field(
        10.0,
        gt=0,
        description="Seconds between checks of every served manifest, and between reads of the "
        "repository when nothing wakes the builder.",
    )
    hand_over_after_seconds: float = Field(
        3.0,
        ge=0,
        description="Seconds that a shard stays in its tier once an index server of an older tier "
        "holds all of its offsets; must exceed the router's SHASHIN_DEADLINE_MS.",
    )
    retention_days: float = Field(
        0.0,
        ge=0,
        description="Days after which a shard is no longer served, counted from the end of its "
        "bucket; 0 serves everything for ever.",
    )
    rollout: Literal["pointer", "images"] = Field(
        "pointer",
        description="How tiers come to serve what their pointers name: `pointer` leaves it to index "
        "servers that follow them; `images` also publishes images with the shards, and keeps an "
        "IndexServing for each on Kubernetes.",
    )
    namespace: str = Field(
        "", description="Namespace of the IndexServings; empty for the image builder's own."
    )
    index_server_image: str = Field(
        "",
        description="With SHASHIN_ROLLOUT=images required: the image of the index server, "
        "REPOSITORY:TAG or REPOSITORY@sha256:DIGEST. A tag is resolved again every "
        "SHASHIN_RESYNC_SECONDS, so a new release is rolled out.",
    )
    image_repository: str = Field(
        "",
        description="With SHASHIN_ROLLOUT=images required: the repository that images with shards are "
        "pushed to. Only the image builders of one namespace may push to it.",
    )
    image_max_layers: int = Field(
        MAX_LAYERS,
        ge=2,
        le=MAX_LAYERS,
        description="Layers that an image may have, one for each shard and those of the index server.",
    )
    image_max_rows: int = Field(
        20_000_000,
        ge=1,
        description="Rows that the shards of one image may have together; a larger shard is alone.",
    )
    image_grace_days: float = Field(
        7.0,
        ge=0,
        description="Days after which an image is deleted that no IndexServing and no pod uses any "
        "more; at least an hour; 0 deletes none.",
    )
    serving_replicas: int = Field(
        2,
        ge=1,
        le=100,
        description="Replicas of a new IndexServing; of one that exists they are not changed.",
    )

    @field_validator("index_server_image")
    @classmethod
    def _image_can_be_named(cls, value: str) -> str:
        return validated_by(parse_reference, value) if value else value

    @field_validator("image_repository")
    @classmethod
    def _repository_can_be_named(cls, value: str) -> str:
        return validated_by(parse_repository, value) if value else value

    @field_validator("image_grace_days")
    @classmethod
    def _grace_is_longer_than_a_rollout(cls, value: float) -> float:
        if 0 < value < MIN_GRACE_SECONDS / 86400:
            raise ValueError(
                "expected 0, or at least an hour, 0.042: an image is pushed before anything names it"
            )
        return value

    def check_images(self) -> None:
        """Check what a rollout by images needs.

        Raises:
            SettingsError: naming what is missing.
        """
        missing = [
            name
            for name, value in (
                ("SHASHIN_INDEX_SERVER_IMAGE", self.index_server_image),
                ("SHASHIN_IMAGE_REPOSITORY", self.image_repository),
            )
            if not value
        ]
        if missing:
            raise SettingsError(
                f"{' and '.join(missing)} not set: SHASHIN_ROLLOUT=images needs the image of the index "
                "server, and the repository that images with shards are pushed to"
            )
