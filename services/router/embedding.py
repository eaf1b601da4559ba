"""Embedding a query's photo: one of the embedders that discovery names, or another one."""

from __future__ import annotations

import itertools

import grpc
import numpy as np
import numpy.typing as npt

from services.router import metrics
from services.router.deadline import Deadline
from services.router.queries import unit_length
from shashin.discovery.protocol import EMBEDDER, Endpoint
from shashin.errors import (
    DeadlineExceeded,
    InvalidQuery,
    NoEndpoint,
    PhotoError,
    ShashinError,
    WrongModelRequested,
)
from shashin.model_space import ModelSpace
from shashin.serving.fleet import Fleet, OtherModel, Peer
from shashin.v1 import embed_pb2

_PHOTO_ERRORS = {error.__name__: error for error in PhotoError.__subclasses__()}


class Embedding:
    """Asks the embedders in turn; one that cannot answer is passed over."""

    def __init__(self, fleet: Fleet, space: ModelSpace) -> None:
        self._fleet = fleet
        self._space = space
        self._turn = itertools.count()
        self._unusable: dict[Endpoint, str] = {}
        """Embedders whose last answer was of another model or no query vector, with what it was;
        they are asked after all others."""

    async def query_of(self, photo: bytes, deadline: Deadline) -> npt.NDArray[np.float32]:
        """Return the photo's vector, (1, dimensions) float32 of unit length.

        Raises:
            PhotoError: when the photo cannot be used.
            WrongModelRequested: when there are only embedders of another model.
            NoEndpoint: when no embedder answers.
            DeadlineExceeded: when none answers in time.
        """
        with self._fleet.hold(EMBEDDER) as held:
            if not held.peers and not held.other_models:
                raise NoEndpoint(
                    "no embedder is known, so a photo cannot be searched for: discovery names "
                    "none; start one, or search by a vector or a listing"
                )
            known = {embedder.endpoint for embedder in held.peers}
            self._unusable = {e: said for e, said in self._unusable.items() if e in known}
            failed = []
            for embedder in self._in_turn(held.peers):
                try:
                    answer = await embedder.embed.Embed(
                        embed_pb2.EmbedRequest(photos=[photo]), timeout=deadline.left()
                    )
                except grpc.aio.AioRpcError as error:
                    _raise_for_caller(error, embedder.endpoint, deadline)
                    metrics.FAILED_EMBEDS.labels(error.code().name).inc()
                    failed.append(f"{embedder.endpoint}: {error.code().name}: {error.details()}")
                    continue
                vector = self._checked(answer, embedder.endpoint)
                if vector is not None:
                    return vector
            raise self._nobody(failed, held.other_models)

    def _in_turn(self, embedders: list[Peer]) -> list[Peer]:
        if not embedders:
            return []
        first = next(self._turn) % len(embedders)
        turned = embedders[first:] + embedders[:first]
        return sorted(turned, key=lambda peer: peer.endpoint in self._unusable)

    def _checked(
        self, answer: embed_pb2.EmbedResponse, embedder: Endpoint
    ) -> npt.NDArray[np.float32] | None:
        if answer.model_id != self._space.model_id:
            self._unusable[embedder] = f"model {answer.model_id!r}"
            return None
        vector = np.frombuffer(answer.vectors, dtype=np.uint8)
        if answer.dimensions != self._space.dimensions or len(vector) != 4 * answer.dimensions:
            fault = f"{answer.dimensions} dimensions in {len(vector)} bytes"
        else:
            floats = vector.view("<f4").astype(np.float64)[None, :]
            if np.isfinite(floats).all() and floats.any():
                self._unusable.pop(embedder, None)
                return unit_length(floats)
            fault = "a vector that is zero or not finite"
        self._unusable[embedder] = fault
        metrics.FAILED_EMBEDS.labels(grpc.StatusCode.INTERNAL.name).inc()
        return None

    def _nobody(self, failed: list[str], other_models: list[OtherModel]) -> ShashinError:
        unusable = "; ".join(
            [
                *map(str, other_models),
                *(f"{embedder} answers with {said}" for embedder, said in self._unusable.items()),
            ]
        )
        if failed:
            # The right one may come back, so a retry can help.
            aside = f"; not usable: {unusable}" if unusable else ""
            return NoEndpoint(
                f"no embedder of {self._space.model_id!r} answers: {'; '.join(failed)}{aside}"
            )
        return WrongModelRequested(
            f"{unusable}; the router searches model {self._space.model_id!r} with "
            f"{self._space.dimensions} dimensions: let embedder and router have the same model"
        )


def _raise_for_caller(error: grpc.aio.AioRpcError, embedder: Endpoint, deadline: Deadline) -> None:
    """Raise what another embedder could not do better: a bad photo stays bad, time does not return."""
    details = error.details() or ""
    if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
        reason, _, message = details.partition(": ")
        named = _PHOTO_ERRORS.get(reason)
        raise (InvalidQuery(details) if named is None else named(message)) from None
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        raise DeadlineExceeded(
            f"the embedder {embedder} did not embed the photo within "
            f"{deadline.seconds * 1000:.0f} ms"
        ) from None
