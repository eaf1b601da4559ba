"""Clients of the router and the embedder for the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from shashin.codecs.limits import MAX_LISTING_IDS
from shashin.errors import DeadlineExceeded, NoEndpoint, Overloaded, ShashinError, UserError
from shashin.offsets.ranges import OffsetRange, merge_ranges
from shashin.rpc.channel import open_channel
from shashin.rpc.router_access import KEY_VARIABLES, RouterAccess, given_access, open_router_channel
from shashin.v1 import (
    embed_pb2,
    embed_pb2_grpc,
    index_pb2,
    search_pb2,
    search_pb2_grpc,
)

_EMBED_AT_ONCE = 16

_USER_ERRORS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
}


def _named(error: grpc.aio.AioRpcError, what: str, address: str) -> ShashinError:
    code, details = error.code(), error.details() or "no details"
    if code in _USER_ERRORS:
        # The server's message starts with the error's class name, which does not help a user.
        return UserError(details.partition(": ")[2] or details)
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return UserError(f"{details.partition(': ')[2] or details} ({KEY_VARIABLES})")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Overloaded(f"the {what} at {address} refuses the call: {details}")
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"the {what} at {address} did not respond in time: {details}")
    if code == grpc.StatusCode.UNAVAILABLE:
        return NoEndpoint(
            f"the {what} at {address} is unavailable ({details}): `shashin status` shows whether it "
            "is running, `shashin up` starts it"
        )
    return ShashinError(f"the {what} at {address} failed ({code.name}): {details}")


class RouterClient:
    """Client of one router's SearchService."""

    def __init__(
        self, address: str, *, wait_for_ready: bool = False, access: RouterAccess | None = None
    ) -> None:
        """Use the routers at an address; with ``wait_for_ready``, wait for one as long as a call may take.

        Without ``access``, certificates and key are those of the command, or of the environment.

        Raises:
            UserError: if the address is malformed, or a file cannot be read.
        """
        self.address = address
        # A query may be repeated, and on Kubernetes other routers have the same name.
        self._channel = open_router_channel(
            address,
            given_access() if access is None else access,
            retried_service="shashin.v1.SearchService",
            wait_for_ready=wait_for_ready,
        )
        self._stub = search_pb2_grpc.SearchServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._channel.close()

    async def search(
        self,
        *,
        photo: bytes | None = None,
        vector: npt.NDArray[np.float32] | None = None,
        listing_id: str | None = None,
        k: int = 10,
        row_filter: index_pb2.Filter | None = None,
        within_seconds: float = 10.0,
    ) -> search_pb2.SearchResponse:
        """Search by exactly one of a photo's bytes, a vector (dimensions,) or a listing.

        Raises:
            UserError: if the router rejects the query, or does not know the listing.
            NoEndpoint: if the router does not respond.
        """
        request = search_pb2.SearchRequest(k=k, filter=row_filter)
        if photo is not None:
            request.photo = photo
        elif vector is not None:
            request.vector = vector.astype("<f4").tobytes()
        elif listing_id is not None:
            request.listing_id = listing_id
        answer: search_pb2.SearchResponse = await self._call(
            self._stub.Search, request, within_seconds
        )
        return answer

    async def locate(self, listing_ids: Iterable[str]) -> dict[str, search_pb2.Location]:
        """Return the location of each searchable listing, without hidden and unknown ones."""
        ids = list(listing_ids)
        found: dict[str, search_pb2.Location] = {}
        for start in range(0, len(ids), MAX_LISTING_IDS):
            request = search_pb2.LocateRequest(listing_ids=ids[start : start + MAX_LISTING_IDS])
            answer: search_pb2.LocateResponse = await self._call(self._stub.Locate, request, 10.0)
            if answer.failed_endpoints:
                failed = answer.failed_endpoints[0]
                raise NoEndpoint(f"{failed.name} at {failed.address} failed: {failed.error}")
            found |= {location.listing_id: location for location in answer.locations}
        return found

    async def status(self) -> search_pb2.StatusResponse:
        """Return the endpoints and the coverage."""
        answer: search_pb2.StatusResponse = await self._call(
            self._stub.Status, search_pb2.StatusRequest(), 5.0
        )
        return answer

    async def _call(self, method: Any, request: Any, within_seconds: float) -> Any:
        try:
            return await method(request, timeout=within_seconds)
        except grpc.aio.AioRpcError as error:
            raise _named(error, "router", self.address) from None


async def embed(address: str, photos: Sequence[bytes]) -> npt.NDArray[np.float32]:
    """Return the embedder's vectors of photos, (len(photos), dimensions) float32.

    Raises:
        UserError: if a photo cannot be used.
        NoEndpoint: if the embedder does not respond.
    """
    parts = []
    async with open_channel(address) as channel:
        stub = embed_pb2_grpc.EmbedServiceStub(channel)
        for start in range(0, len(photos), _EMBED_AT_ONCE):
            request = embed_pb2.EmbedRequest(photos=photos[start : start + _EMBED_AT_ONCE])
            try:
                answer = await stub.Embed(request, timeout=30.0)
            except grpc.aio.AioRpcError as error:
                raise _named(error, "embedder", address) from None
            vectors = np.frombuffer(answer.vectors, dtype="<f4")
            parts.append(vectors.reshape(-1, answer.dimensions))
    return np.concatenate(parts)


def covered_records(status: search_pb2.StatusResponse, tier: str | None = None) -> int:
    """Return how many distinct records of vectors.embedded the ready endpoints hold.

    With ``tier``, only that tier's endpoints count.
    """
    return records_in(
        OffsetRange(r.partition, r.from_offset, r.to_offset)
        for endpoint in status.endpoints
        if endpoint.ready and tier in {None, endpoint.tier}
        for r in endpoint.covered
    )


def records_in(ranges: Iterable[OffsetRange]) -> int:
    """Return how many distinct offsets the ranges contain."""
    return sum(r.to_offset - r.from_offset for r in merge_ranges(ranges))
