"""What routers answer, as callers of the client read it: plain values that never change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Photo:
    """A photo of a listing that was found."""

    number: int
    """Its place in the listing, from 0."""
    score: float
    """Cosine similarity with the query, -1 to 1; higher is nearer."""
    uri: str = ""
    """Where it was read from; empty if that is not known, or with ``ids_only``."""
    hash: str = ""
    """The first 8 bytes of the SHA-256 of the original as 16 hex digits; empty if they are not known."""


@dataclass(frozen=True)
class Attributes:
    """What a listing's last event said of it."""

    category: str = ""
    brand: str = ""
    price_minor: int | None = None
    """Minor units of the currency (yen, cents); None if the listing has no price."""
    currency: str = ""
    """ISO 4217; empty if the listing has no price."""
    listed_at: datetime | None = None
    """When it first went on sale, in UTC; None if that is not known."""


@dataclass(frozen=True)
class Hit:
    """A listing that was found or, with ``each_photo``, one of its photos."""

    listing_id: str
    version: int
    score: float
    """Cosine similarity of its nearest photo, -1 to 1; higher is nearer."""
    tier: str
    """live, hourly, daily or monthly."""
    photo: Photo
    """Its photo that is nearest to the query."""
    other_photos: tuple[Photo, ...] = ()
    """Its other searchable photos, nearest first; only with ``other_photos``."""
    attributes: Attributes | None = None
    """None with ``ids_only``."""


@dataclass(frozen=True)
class OffsetRange:
    """Offsets [from_offset, to_offset) of one partition of the log of listings."""

    partition: int
    from_offset: int
    to_offset: int


@dataclass(frozen=True)
class StageLag:
    """How far a stage before the index is behind the end of its input."""

    stage: str
    """downloader or embedder."""
    records: int | None
    """Records that it has not processed; None if unknown."""
    seconds: float
    """For how long at least the oldest of them has been waiting."""


@dataclass(frozen=True)
class Coverage:
    """How much of the log of listings was searched."""

    complete: bool
    """Whether all that had been embedded was searched."""
    missing: tuple[OffsetRange, ...] = ()
    """What no searched shard covers."""
    unknown_partitions: tuple[int, ...] = ()
    """Partitions of which no live tier reported."""
    stages: tuple[StageLag, ...] = ()
    """In the order of the pipeline; empty if no live tier reported them."""
    end_unknown_seconds: float = 0.0
    """For how long some live tier could not read the end of the log; 0 for up to 5."""


@dataclass(frozen=True)
class FailedEndpoint:
    """A part of the index that did not answer."""

    name: str
    address: str
    error: str
    """gRPC status and message."""


@dataclass(frozen=True)
class Timings:
    """How long the router took, in seconds."""

    embed: float = 0.0
    fan_out: float = 0.0
    merge: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class Answer:
    """The answer to a search."""

    hits: tuple[Hit, ...]
    """Nearest first; each listing once, or with each of its photos (``each_photo``)."""
    coverage: Coverage
    failed_endpoints: tuple[FailedEndpoint, ...] = ()
    model_id: str = ""
    timings: Timings = Timings()
    endpoints: int = 0
    """Number of endpoints that answered in full."""
    endpoints_asked: int = 0
    notes: tuple[str, ...] = ()
    """What the caller should know of the query, in words, such as a brand that no listing has."""

    @property
    def complete(self) -> bool:
        """Whether everything was searched: if not, nearer listings may exist."""
        return self.coverage.complete and not self.failed_endpoints


@dataclass(frozen=True)
class Location:
    """Where a searchable listing is."""

    listing_id: str
    version: int
    photo_numbers: tuple[int, ...]
    """The searchable photos of this version."""
    tiers: tuple[str, ...]


@dataclass(frozen=True)
class Located:
    """Which of some listings are searchable."""

    locations: dict[str, Location]
    """By listing id; hidden and unknown listings are absent."""
    failed_endpoints: tuple[FailedEndpoint, ...] = ()
    """If there are any, a listing that is absent may be there nevertheless."""


@dataclass(frozen=True)
class Endpoint:
    """A part of the index, as the router sees it."""

    name: str
    address: str
    tier: str
    ready: bool
    error: str
    shards: int
    rows: int
    hidden_rows: int
    covered: tuple[OffsetRange, ...]
    model_id: str
    """The model that it holds; empty if unknown. One of another model than the router's is not searched."""


@dataclass(frozen=True)
class Status:
    """The state of the index, as the router sees it."""

    model_id: str
    endpoints: tuple[Endpoint, ...]
    coverage: Coverage
