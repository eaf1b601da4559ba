"""Searching from another service: ``Client`` for threads, ``AsyncClient`` for asyncio (docs/client.md).

They need gRPC and protobuf, and nothing else of what Shashin's own services do (locks/client.txt). The other
modules here talk to a running system for the command: events in, searches and topic tails out.
"""

from shashin.client.answer import (
    Answer,
    Attributes,
    Coverage,
    Endpoint,
    FailedEndpoint,
    Hit,
    Located,
    Location,
    OffsetRange,
    Photo,
    StageLag,
    Status,
    Timings,
)
from shashin.client.async_client import AsyncClient
from shashin.client.query import Box, Filter, Part, PhotoInput, PriceRange, TimeRange
from shashin.client.retrying import RetryPolicy
from shashin.client.sync_client import Client
from shashin.errors import (
    CallFailed,
    ClientUnusable,
    DeadlineExceeded,
    InvalidQuery,
    ListingNotFound,
    Overloaded,
    PhotoError,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UserError,
)
from shashin.errors import ShashinError as SearchError

__all__ = [
    "Answer",
    "AsyncClient",
    "Attributes",
    "Box",
    "CallFailed",
    "Client",
    "ClientUnusable",
    "Coverage",
    "DeadlineExceeded",
    "Endpoint",
    "FailedEndpoint",
    "Filter",
    "Hit",
    "InvalidQuery",
    "ListingNotFound",
    "Located",
    "Location",
    "OffsetRange",
    "Overloaded",
    "Part",
    "Photo",
    "PhotoError",
    "PhotoInput",
    "PriceRange",
    "RateLimited",
    "RetryPolicy",
    "SearchError",
    "StageLag",
    "Status",
    "TimeRange",
    "Timings",
    "Unauthenticated",
    "Unavailable",
    "UserError",
]
