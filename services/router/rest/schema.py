"""The JSON of requests and answers; the OpenAPI document is made from it. Rules are the searches' own."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Annotated

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    WithJsonSchema,
)


def _decoded(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise ValueError(f"no Base64 (RFC 4648): {error}") from None


File = Annotated[
    bytes,
    BeforeValidator(_decoded),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
Vector = Annotated[
    list[FiniteFloat],
    Field(
        min_length=1,
        max_length=65_536,
        description="As many numbers as the active model has dimensions.",
    ),
]
ListingId = Annotated[str, Field(min_length=1, max_length=256, examples=["m12345678"])]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Text = Annotated[str, Field(max_length=256)]
Amount = Annotated[int, Field(ge=0, le=2**63 - 1, description="In minor units: yen, cents.")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CropBox(_Request):
    """A part of a photo, as shares of its width and height: left < right and top < bottom."""

    left: Share
    top: Share
    right: Share
    bottom: Share


class QueryPart(_Request):
    """One of several things that a query combines: exactly one of photo, upload, vector and listing_id."""

    photo: File | None = Field(None, description="The file in Base64.")
    upload: str | None = Field(
        None, max_length=100, description="Name of the form's file; only in a multipart request."
    )
    vector: Vector | None = None
    listing_id: ListingId | None = Field(
        None, description="A searchable listing: the mean of its photos. It is no hit."
    )
    crop: CropBox | None = Field(None, description="The part of the photo that is searched for.")
    weight: FiniteFloat = Field(
        1.0, ge=-10, le=10, description="Not 0; below 0, what resembles it less is found."
    )


class PriceRange(_Request):
    """Prices in one currency."""

    currency: str = Field(pattern="^[A-Z]{3}$", description="ISO 4217.", examples=["JPY"])
    min_minor: Amount | None = Field(None, description="The lowest price, in minor units.")
    max_minor: Amount | None = Field(None, description="The highest price, in minor units.")


class TimeRange(_Request):
    """When a listing first went on sale."""

    since: AwareDatetime | None = Field(None, description="Inclusive.")
    until: AwareDatetime | None = Field(None, description="Exclusive.")


class Filter(_Request):
    """Which listings may be hits: those that match every field that is given, by any of its entries."""

    categories: list[Text] = Field([], max_length=1000)
    category_prefixes: list[Text] = Field(
        [],
        max_length=1000,
        description="Categories below a path: `fashion/shoes` has `fashion/shoes/sneakers`. One field with "
        "`categories`: either matches.",
    )
    brands: list[Text] = Field([], max_length=1000)
    prices: list[PriceRange] = Field([], max_length=100)
    listed: list[TimeRange] = Field([], max_length=100)


class SearchQuery(_Request):
    """Exactly one of photo, vector, listing_id and parts; in a form, `photo` is the file of that name."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"listing_id": "m12345678", "k": 20},
                {
                    "listing_id": "m12345678",
                    "filter": {
                        "category_prefixes": ["fashion/shoes"],
                        "prices": [{"currency": "JPY", "max_minor": 5000}],
                    },
                },
            ]
        },
    )

    photo: File | None = Field(
        None, description="A JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC file in Base64."
    )
    vector: Vector | None = None
    listing_id: ListingId | None = Field(
        None, description="A searchable listing: each of its photos is searched for. It is no hit."
    )
    crop: CropBox | None = Field(None, description="The part of `photo` that is searched for.")
    parts: list[QueryPart] = Field(
        [], max_length=8, description="Searched for with one vector, the weighted sum of theirs."
    )
    k: int = Field(10, ge=1, le=1000, description="Maximum hits.")
    filter: Filter = Filter()
    min_score: FiniteFloat | None = Field(None, ge=-1, le=1, description="Of every hit.")
    each_photo: bool = Field(
        default=False, description="Each photo is a hit, instead of each listing."
    )
    other_photos: bool = Field(
        default=False, description="Hits list the other photos of their listing."
    )
    ids_only: bool = Field(default=False, description="Hits have no attributes and no photo URIs.")
    excluded_listing_ids: list[ListingId] = Field([], max_length=1000)
    deadline_ms: int | None = Field(
        None, ge=1, le=60_000, description="Of the whole search; the router's own by default."
    )


class Price(BaseModel):
    """A price."""

    amount_minor: int = Field(description="In minor units: yen, cents.")
    currency: str = Field(description="ISO 4217.")


class Attributes(BaseModel):
    """What a listing's newest event says of it."""

    category: str
    brand: str
    price: Price | None
    listed_at: datetime | None


class Photo(BaseModel):
    """A photo of a listing."""

    photo_number: int = Field(description="Position among the listing's photos, from 0.")
    score: float = Field(description="Cosine similarity to the query: -1 to 1, higher is nearer.")
    uri: str | None = Field(description="Where it was read from; null if that is not known.")
    hash: str | None = Field(
        description="Of the original: the first 8 bytes of its SHA-256 as 16 hex digits; null if not known."
    )


class Hit(Photo):
    """A listing, with its nearest photo; or one photo, with each_photo."""

    listing_id: str
    version: int
    tier: str
    attributes: Attributes | None = Field(description="null with ids_only.")
    other_photos: list[Photo] = Field(description="Nearest first; empty unless asked for.")


class OffsetRange(BaseModel):
    """Offsets from `from_offset` to before `to_offset` of a partition of vectors.embedded."""

    partition: int
    from_offset: int
    to_offset: int


class StageLag(BaseModel):
    """How far a stage of the pipeline is behind."""

    stage: str
    records: int | None = Field(description="Not processed yet; null if unknown.")
    seconds: float = Field(description="For how long at least the oldest of them has been waiting.")


class Coverage(BaseModel):
    """Whether everything was searched that should be."""

    complete: bool
    missing: list[OffsetRange] = Field(description="Ranges of the log that no searched shard has.")
    unknown_partitions: list[int]
    stages: list[StageLag] = Field(description="What is on its way, in the order of the pipeline.")
    end_unknown_seconds: float


class FailedEndpoint(BaseModel):
    """An endpoint that did not answer."""

    name: str
    address: str
    error: str


class Timings(BaseModel):
    """Seconds of each part of a search."""

    embed: float
    fan_out: float
    merge: float
    total: float


class SearchAnswer(BaseModel):
    """The hits of a search, nearest first; equal scores by listing id and photo number."""

    hits: list[Hit]
    coverage: Coverage
    failed_endpoints: list[FailedEndpoint]
    model_id: str
    timings: Timings
    endpoints_asked: int
    endpoints: int = Field(description="How many of them answered in full.")
    notes: list[str] = Field(description="What of the query nobody knows, such as a category.")


class NewListing(BaseModel):
    """A listing, with its first photo."""

    listing_id: str
    version: int
    photo_number: int = Field(description="Position among the listing's photos, from 0.")
    tier: str
    uri: str | None = Field(description="Where it was read from; null if that is not known.")
    hash: str | None = Field(
        description="Of the original: the first 8 bytes of its SHA-256 as 16 hex digits; null if not known."
    )
    attributes: Attributes


class NewestAnswer(BaseModel):
    """The newest listings among the latest records, by `listed_at`, those without one last."""

    listings: list[NewListing]
    failed_endpoints: list[FailedEndpoint]
    model_id: str


class EndpointStatus(BaseModel):
    """An endpoint as the router sees it."""

    name: str
    address: str
    tier: str
    ready: bool
    error: str | None
    shards: int
    rows: int
    hidden_rows: int
    model_id: str | None


class Status(BaseModel):
    """What can be searched now."""

    model_id: str
    endpoints: list[EndpointStatus]
    coverage: Coverage


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str


class Problem(BaseModel):
    """Why there is no answer (RFC 9457)."""

    type: str = Field(examples=["urn:shashin:problem:InvalidQuery"])
    title: str = Field(examples=["Invalid query"])
    status: int
    detail: str = Field(description="What was found, what was expected, and what to do.")
    reason: str = Field(description="The error's name, as in gRPC's ErrorInfo.")
    retryable: bool
    errors: list[FieldProblem] = []
