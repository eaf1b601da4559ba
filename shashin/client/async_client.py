"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from shashin.client.answer import Answer, Located, Status
from shashin.client.calls import Call, Pause, Send
from shashin.client.configured_client import ConfiguredClient
from shashin.client.photo_input import photos_read
from shashin.client.query import Box, Filter, Part, PhotoInput, Query
from shashin.errors import ClientUnusable
from shashin.v1 import search_pb2_grpc

T = TypeVar("T")


class AsyncClient(ConfiguredClient):
    """Searches through routers, with any number of tasks of one event loop over one set of connections.

    Cancelling a task cancels its call at the router.
    """

    def _set_up(self) -> None:
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections; calls of other tasks end with ClientUnusable."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def search(
        self,
        *,
        photo: PhotoInput | None = None,
        vector: Sequence[float] | Any = None,
        listing_id: str | None = None,
        parts: Sequence[Part] = (),
        crop: Box | Sequence[float] | None = None,
        k: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the field's name
        min_score: float | None = None,
        each_photo: bool = False,
        other_photos: bool = False,
        ids_only: bool = False,
        exclude: Sequence[str] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline that the server is told
    ) -> Answer:
        """Search by exactly one of a photo, a vector, a listing and parts.

        Args:
            photo: Bytes, the path of a file, an open file, or an image of Pillow; at most 16 MiB.
            vector: Numbers or a NumPy array, (dimensions,), of any length but zero.
            listing_id: A searchable listing, which is not a hit itself.
            parts: 1 to 8 of them, searched for as one.
            crop: The part of ``photo`` that is searched for: left, top, right and bottom edge, from 0 to 1.
            k: Maximum hits, 1 to 1000.
            filter: Which listings may be hits.
            min_score: Only hits of at least this cosine similarity, -1 to 1.
            each_photo: Whether each photo is a hit, instead of each listing with its nearest photo.
            other_photos: Whether hits list the other photos of their listing.
            ids_only: Whether hits have no attributes and no photo URIs, which costs less.
            exclude: Up to 1000 listings that are no hits.
            timeout: Seconds for everything; the client's if None. The router is told what is left of it.

        Raises:
            InvalidQuery: naming the field.
            PhotoError: if the photo cannot be used.
            UserError: if its file cannot be read.
            ListingNotFound: if ``listing_id``, or that of a part, is not searchable.
            Unauthenticated: if the key or the certificate is missing or refused.
            RateLimited, Overloaded, Unavailable: once retries have not helped.
            DeadlineExceeded: when the timeout passes.
        """
        query = Query(
            photo,
            vector,
            listing_id,
            parts,
            crop,
            k,
            filter,
            min_score,
            each_photo,
            other_photos,
            ids_only,
            exclude,
        )
        # Files may be slow to read.
        read = (
            await asyncio.to_thread(photos_read, query) if _has_files(query) else photos_read(query)
        )
        return await self._carry_out(self._calls.search(query, read, self._seconds(timeout)))

    async def similar(
        self,
        listing_id: str,
        *,
        k: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the field's name
        min_score: float | None = None,
        each_photo: bool = False,
        other_photos: bool = False,
        ids_only: bool = False,
        exclude: Sequence[str] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - as in search
    ) -> Answer:
        """Search for listings like one that is searchable: ``search`` with a ``listing_id``."""
        return await self.search(
            listing_id=listing_id,
            k=k,
            filter=filter,
            min_score=min_score,
            each_photo=each_photo,
            other_photos=other_photos,
            ids_only=ids_only,
            exclude=exclude,
            timeout=timeout,
        )

    async def locate(
        self,
        ids: str | Iterable[str],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in search
    ) -> Located:
        """Return where each searchable listing is, of any number of ids.

        Raises:
            As ``search`` does.
        """
        return await self._carry_out(self._calls.locate(ids, self._seconds(timeout)))

    async def status(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in search
    ) -> Status:
        """Return the state of the index, as the router that answers sees it.

        Raises:
            As ``search`` does.
        """
        return await self._carry_out(self._calls.status(self._seconds(timeout)))

    async def _carry_out(self, call: Call[T]) -> T:
        stub = self._opened()
        outcome = None
        while True:
            try:
                step = call.send(outcome)
            except StopIteration as done:
                found: T = done.value
                return found
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._sent(stub, step)

    async def _sent(self, stub: Any, step: Send) -> Any:
        self._check_open()
        try:
            return await getattr(stub, step.method)(
                step.request, timeout=step.seconds, metadata=self._connection.metadata()
            )
        except grpc.aio.AioRpcError as error:
            self._check_open()
            return self._connection.failure(error)
        except (asyncio.CancelledError, grpc.aio.UsageError):
            # gRPC's own for a channel that another task has closed; or this task is cancelled.
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                self._check_open()
            raise

    def _opened(self) -> Any:
        """Return the stub; a channel is of the event loop that it is opened in."""
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._channel = self._connection.async_channel()
            self._stub = search_pb2_grpc.SearchServiceStub(self._channel)
        if self._loop is not loop:
            raise ClientUnusable(
                "the client belongs to another event loop; expected one client per loop: make another"
            )
        return self._stub

    def _check_open(self) -> None:
        if self._closed:
            raise ClientUnusable("the client is closed; expected an open one: make another")


def _has_files(query: Query) -> bool:
    photos = [query.photo, *(part.photo for part in query.parts)]
    return any(
        not isinstance(photo, (bytes, bytearray, memoryview, type(None))) for photo in photos
    )
