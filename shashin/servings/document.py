"""IndexServing documents: an image, the shards in it, and how many pods serve them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from shashin.documents.conditions import Condition
from shashin.documents.parsing import FieldPath, parse_document
from shashin.documents.parts import (
    API_VERSION,
    Labels,
    ModelPart,
    Part,
    Text,
    check_known,
    check_name,
    check_shards_of,
    checked,
    repeated,
    same_as_before,
    validation,
)
from shashin.offsets.ranges import OffsetRange
from shashin.tiers import SEALED_TIERS

KIND: Final = "IndexServing"

MAX_SHARDS = 100
"""Of one image: each is a layer."""

DIGEST_REFERENCE = r"^[^@\s]+@sha256:[0-9a-f]{64}$"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"


def _check_tier(tier: str) -> None:
    check_known(tier, SEALED_TIERS, "a sealed tier")


def _check_image(image: str) -> str:
    if re.fullmatch(DIGEST_REFERENCE.strip("^$"), image) is None:
        raise ValueError(
            f"{image!r} does not name an image by its digest: expected REPOSITORY@sha256:..., since a "
            "tag can change what is served"
        )
    return image


ServingName = Annotated[
    str, StringConstraints(strict=True), checked(lambda name: check_name(name, "serving"))
]
Quantity = Annotated[str, StringConstraints(strict=True, pattern=_QUANTITY)]
Image = Annotated[
    str,
    StringConstraints(strict=True, max_length=512),
    AfterValidator(_check_image),
    Field(json_schema_extra={"pattern": DIGEST_REFERENCE}),
]


class Metadata(Part):
    """The serving's name and labels."""

    name: ServingName
    """Unique in a namespace."""
    labels: Labels = Field(default_factory=dict)


class SourceRange(Part):
    """Offsets of one partition of vectors.embedded."""

    partition: Annotated[int, Field(strict=True, ge=0)]
    """Its number."""
    from_offset: Annotated[int, Field(strict=True, ge=0)]
    """The first offset."""
    to_offset: Annotated[int, Field(strict=True, ge=0)]
    """The first offset that is not in it."""

    @model_validator(mode="after")
    def _has_offsets(self) -> SourceRange:
        if self.to_offset <= self.from_offset:
            raise ValueError(
                f"it ends at offset {self.to_offset} and starts at {self.from_offset}: expected an end "
                "after the start"
            )
        return self

    model_config = validation(
        "self.toOffset > self.fromOffset", "toOffset must be greater than fromOffset"
    )

    @property
    def offsets(self) -> OffsetRange:
        """The range as coverage counts with it."""
        return OffsetRange(self.partition, self.from_offset, self.to_offset)


class ServedShard(Part):
    """A shard that the image has."""

    id: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=512)]
    """The shard's id, which begins with its model and tier."""
    rows: Annotated[int, Field(strict=True, ge=0)]
    """Number of vectors."""
    ranges: Annotated[tuple[SourceRange, ...], Field(min_length=1, max_length=4096)]
    """The offsets that it was built from."""


class Resources(Part):
    """What each pod asks for, and may use at most, as for any container."""

    requests: dict[Text, Quantity] = Field(default_factory=dict)
    """What a pod asks for, such as memory: 2Gi."""
    limits: dict[Text, Quantity] = Field(default_factory=dict)
    """What a pod may use at most."""


class Spec(ModelPart):
    """What is served, by what."""

    tier: Annotated[
        str,
        Field(strict=True, json_schema_extra={"enum": list(SEALED_TIERS)}),
        checked(_check_tier),
        same_as_before("tier"),
    ]
    """The tier that the shards belong to."""
    image: Image
    """The index server's image with a layer for each shard, by its digest."""
    shards: Annotated[tuple[ServedShard, ...], Field(min_length=1, max_length=MAX_SHARDS)]
    """The shards in the image."""
    replicas: Annotated[int, Field(strict=True, ge=0, le=100)] = 2
    """Number of pods that serve all of them."""
    resources: Resources = Field(default_factory=Resources)
    """What each pod asks for, and may use at most, as for any container."""

    @model_validator(mode="after")
    def _shards_are_of_the_model(self) -> Spec:
        check_shards_of(self.model, (shard.id for shard in self.shards), "shards")
        if twice := repeated(shard.id for shard in self.shards):
            raise ValueError(f"shards: {twice!r} is listed more than once")
        return self

    model_config = validation(
        "self.shards.all(s, s.id.startsWith(self.model + '.'))",
        "every shard must be of the serving's model: vectors of two models never mix",
    )


class ServingStatus(Part):
    """What was observed of a serving; written by the controller."""

    observed_generation: int = 0
    """The generation of the spec that the rest is about."""
    replicas: int = 0
    """Pods that exist."""
    ready_replicas: int = 0
    """Pods that serve all of its shards."""
    image: str = ""
    """The image that ready pods run."""
    conditions: tuple[Condition, ...] = ()


class IndexServing(Part):
    """Pods that serve shards of one tier, from an image that has them."""

    api_version: Literal["shashin.dev/v1alpha1"] = API_VERSION
    kind: Literal["IndexServing"] = KIND
    metadata: Metadata
    spec: Spec

    @property
    def ranges(self) -> Sequence[OffsetRange]:
        """The offsets of all of its shards."""
        return [r.offsets for shard in self.spec.shards for r in shard.ranges]


def parse_serving(
    document: object, *, origin: str, lines: Mapping[FieldPath, int] | None = None
) -> IndexServing:
    """Check a document.

    Raises:
        UserError: naming every problem with its path and line, and what is expected.
    """
    return parse_document(IndexServing, document, origin=origin, lines=lines or {})
