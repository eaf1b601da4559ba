"""Processes the records of ``images.downloaded``, and queries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import chain
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from PIL import Image

from services.embedder.batching import BatchedModel, Kind
from services.embedder.query_decoder import QueryDecoder
from services.embedder.query_views import mean_of_views, views_of, with_mirrored
from shashin.codecs.unit_vectors import as_stored, length_problem
from shashin.errors import (
    InvalidQuery,
    ModelError,
    NoUsablePhoto,
    PhotoError,
    PhotoTooLarge,
    ShashinError,
    UnparsableRecord,
    WrongVector,
)
from shashin.kafka.dead_letters import DeadLetter
from shashin.kafka.event_time import event_headers
from shashin.kafka.producer import OutRecord
from shashin.kafka.record_spans import in_record_span
from shashin.kafka.records import InRecord
from shashin.kafka.stage import Outcome
from shashin.kafka.topics import VECTORS_EMBEDDED
from shashin.photo_box import Box, box_problem
from shashin.photos import DecodeBudget, thumbnail_image
from shashin.runtime import tracing
from shashin.runtime.failpoints import failpoint
from shashin.v1 import embed_pb2, embed_pb2_grpc, events_pb2

PARSE, DECODE, EMBED = "embedder.parse", "embedder.decode", "embedder.embed"
MAX_QUERY_PHOTOS = 32
MAX_QUERY_BYTES = 16 * 1024 * 1024
THUMBNAIL_DECODE_BYTES = 64 * 1024 * 1024
"""What decoding a thumbnail may take; one that the downloader made takes 10 MB."""

Context = grpc.aio.ServicerContext[Any, Any]
Stored = npt.NDArray[np.float16]


class EmbedStage:
    """Turns listings with thumbnails into listings with vectors."""

    def __init__(self, model: BatchedModel, executor: Executor) -> None:
        self._model = model
        self._executor = executor
        self._budget = DecodeBudget(THUMBNAIL_DECODE_BYTES)

    async def process(self, records: Sequence[InRecord]) -> Sequence[Outcome]:
        """Return one outcome per record; photos of different records share model calls."""
        if (tracer := tracing.tracer()) is None:
            return await asyncio.gather(*map(self._outcome, records))
        return await asyncio.gather(
            *(
                in_record_span(tracer, "embed", record, partial(self._outcome, record))
                for record in records
            )
        )

    def partitions_lost(self, partitions: Sequence[int]) -> None:
        """Do nothing: the stage keeps no state between records."""

    async def _outcome(self, record: InRecord) -> Outcome:
        listing = events_pb2.DownloadedListing()
        try:
            listing.ParseFromString(record.value)
        except (DecodeError, UnicodeDecodeError) as error:
            return _dead_lettered(
                record, UnparsableRecord(f"{record} is not a DownloadedListing: {error}")
            )
        if not listing.listing_id:
            return _dead_lettered(record, UnparsableRecord(f"{record} has no listing id"))
        # The downloader has already dead-lettered the photos that it failed on.
        usable = [photo for photo in listing.photos if photo.WhichOneof("outcome") == "thumbnail"]
        # One job per listing: hundreds of small ones would keep the event loop from queries.
        decoded = await asyncio.get_running_loop().run_in_executor(
            self._executor, self._decoded, [photo.thumbnail for photo in usable]
        )
        failpoint("after-decode")
        images = [image for image in decoded if isinstance(image, Image.Image)]
        failed: list[tuple[events_pb2.DownloadedPhoto, ShashinError, str]] = [
            (photo, error, DECODE)
            for photo, error in zip(usable, decoded, strict=True)
            if isinstance(error, PhotoError)
        ]
        vectors = as_stored(await self._model.embed(images, Kind.LISTING))
        kept = []
        photos = [
            p for p, image in zip(usable, decoded, strict=True) if isinstance(image, Image.Image)
        ]
        for photo, vector in zip(photos, vectors, strict=True):
            problem = length_problem(vector)
            if problem is None:
                kept.append((photo, vector))
            else:
                where = f"{record}, listing {listing.listing_id}, photo {photo.photo_number}"
                failed.append((photo, self._wrong_vector(where, problem), EMBED))
        if not kept:
            reasons = "; ".join(f"photo {p.photo_number}: {e.reason}: {e}" for p, e, _ in failed)
            where = f"{record}, listing {listing.listing_id}"
            return _dead_lettered(
                record,
                NoUsablePhoto(f"{where}: no thumbnail is usable: {reasons or 'it has none'}"),
                EMBED if images else DECODE,
            )
        return Outcome(
            outputs=[self._embedded(listing, kept, record)],
            dead_letters=[
                DeadLetter(record, error, step, scope="photo", photo_number=photo.photo_number)
                for photo, error, step in failed
            ],
        )

    def _decoded(self, thumbnails: Sequence[bytes]) -> list[Image.Image | PhotoError]:
        return [_image_or_error(thumbnail, self._budget) for thumbnail in thumbnails]

    def _wrong_vector(self, where: str, problem: str) -> WrongVector:
        return WrongVector(
            f"{where}: model {self._model.model_id} returned a vector {problem}: correct the model, "
            "or drop the photo"
        )

    def _embedded(
        self,
        listing: events_pb2.DownloadedListing,
        photos: Sequence[tuple[events_pb2.DownloadedPhoto, Stored]],
        record: InRecord,
    ) -> OutRecord:
        message = events_pb2.EmbeddedListing(
            listing_id=listing.listing_id,
            version=listing.version,
            kind=listing.kind,
            occurred_at=listing.occurred_at,
            attributes=listing.attributes,
            model_id=self._model.model_id,
            dimensions=self._model.dimensions,
            vectors=[
                events_pb2.PhotoVector(
                    photo_number=photo.photo_number,
                    vector=vector.tobytes(),
                    content_sha256=photo.content_sha256,
                    uri=photo.uri,
                )
                for photo, vector in photos
            ],
        )
        return OutRecord(
            VECTORS_EMBEDDED,
            listing.listing_id.encode(),
            message.SerializeToString(),
            event_headers(record),
            partition=record.partition,
        )


def _dead_lettered(
    record: InRecord, error: UnparsableRecord | NoUsablePhoto, step: str = PARSE
) -> Outcome:
    return Outcome(dead_letters=[DeadLetter(record, error, step)])


def _image_or_error(data: bytes, budget: DecodeBudget) -> Image.Image | PhotoError:
    try:
        return thumbnail_image(data, budget=budget)
    except PhotoError as error:
        return error


def boxes_of(request: embed_pb2.EmbedRequest) -> list[Box | None]:
    """Return the part of each photo that is embedded; None for all of it.

    Raises:
        InvalidQuery: when their number is not that of the photos, or one is no part of a photo.
    """
    if not request.boxes:
        return [None] * len(request.photos)
    if len(request.boxes) != len(request.photos):
        raise InvalidQuery(
            f"boxes has {len(request.boxes)} entries for {len(request.photos)} photos; expected none, or "
            "as many as photos"
        )
    boxes = [Box(box.left, box.top, box.right, box.bottom) for box in request.boxes]
    for number, box in enumerate(boxes):
        if any(box) and (problem := box_problem(box)):
            raise InvalidQuery(f"boxes[{number}].{problem}")
    return [box if any(box) else None for box in boxes]


class EmbedServicer(embed_pb2_grpc.EmbedServiceServicer):
    """Answers queries."""

    def __init__(
        self,
        model: BatchedModel,
        decoder: QueryDecoder,
        *,
        mirrors: bool = False,
        zooms: bool = False,
    ) -> None:
        """Make a servicer.

        With ``mirrors``, a vector is the mean of a photo and its mirror image; with ``zooms``, who asks for zoomed
        views of a photo gets them.
        """
        self._model = model
        self._decoder = decoder
        self._mirrors = mirrors
        self._zooms = zooms

    async def Embed(  # noqa: N802
        self, request: embed_pb2.EmbedRequest, context: Context
    ) -> embed_pb2.EmbedResponse:
        """Return the vectors of a few photos, or of parts of them."""
        del context
        started = time.perf_counter()
        if not 1 <= len(request.photos) <= MAX_QUERY_PHOTOS:
            raise InvalidQuery(
                f"photos has {len(request.photos)} entries; expected 1 to {MAX_QUERY_PHOTOS}"
            )
        for number, data in enumerate(request.photos):
            if len(data) > MAX_QUERY_BYTES:
                raise PhotoTooLarge(
                    f"photo {number} has {len(data)} bytes; at most {MAX_QUERY_BYTES} are allowed"
                )
        boxes = boxes_of(request)
        with self._decoder.admit(request.photos):
            # One after another, so that a call of many photos leaves room for other calls.
            images = [
                await self._decoded(photo, box, number)
                for number, (photo, box) in enumerate(zip(request.photos, boxes, strict=True))
            ]
            zooms = self._zooms and request.zooms
            parts = views_of(images, [zooms and box is None for box in boxes])
            views = list(chain.from_iterable(parts))
            vectors = await self._model.embed(
                with_mirrored(views) if self._mirrors else views, Kind.QUERY
            )
        owners = [number for number, own in enumerate(parts) for _ in own]
        for row, vector in enumerate(vectors):
            problem = length_problem(vector)
            if problem is not None:
                raise ModelError(
                    f"model {self._model.model_id} returned a vector {problem} for photo "
                    f"{owners[row % len(views)]}"
                )
        if self._mirrors:
            vectors = mean_of_views(vectors)
        return embed_pb2.EmbedResponse(
            model_id=self._model.model_id,
            dimensions=self._model.dimensions,
            vectors=np.ascontiguousarray(vectors, dtype="<f4").tobytes(),
            seconds=time.perf_counter() - started,
            rows_of_photos=[len(own) for own in parts] if len(views) > len(images) else [],
        )

    async def _decoded(self, photo: bytes, box: Box | None, number: int) -> Image.Image:
        try:
            return await self._decoder.decode(photo, box)
        except InvalidQuery as error:
            raise InvalidQuery(f"boxes[{number}]: {error.message}") from error
