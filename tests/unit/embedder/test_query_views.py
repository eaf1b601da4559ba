"""Views of a query photo: zoomed ones, and mirror images."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageOps

from services.embedder.batching import BatchedModel
from services.embedder.handlers import EmbedServicer
from services.embedder.query_decoder import QueryDecoder, QueryLimits
from services.embedder.query_views import mean_of_views
from shashin.codecs.unit_vectors import unit_length
from shashin.runtime.scope import Loop
from shashin.v1 import embed_pb2
from tests.support.loops import running

LIMITS = QueryLimits(photos=100, photo_bytes=100_000_000, decoders=1, decode_bytes=64_000_000)


class HalvesModel:
    """The vector of a photo: how bright its left and its right half are."""

    model_id, dimensions = "halves", 2

    def embed(self, photos: Any) -> Any:
        halves = [
            np.split(np.asarray(photo.convert("L"), np.float32), 2, axis=1) for photo in photos
        ]
        return unit_length(
            np.array([[half.mean() + 1 for half in of] for of in halves], np.float32)
        )


def photo_of(left: int, right: int) -> bytes:
    image = Image.new("L", (40, 40), left)
    image.paste(right, (20, 0, 40, 40))
    output = io.BytesIO()
    image.save(output, "PNG")
    return output.getvalue()


async def answer_to(
    request: embed_pb2.EmbedRequest, **settings: bool
) -> tuple[Any, embed_pb2.EmbedResponse]:
    """Return the vectors of an answer, (rows, 2), and the answer."""
    with ThreadPoolExecutor(1) as executor, QueryDecoder(LIMITS) as decoder:
        model = BatchedModel(HalvesModel(), executor, batch_photos=4)
        servicer = EmbedServicer(model, decoder, **settings)
        async with running(Loop("model", model.run)):
            answer = await servicer.Embed(request, cast("Any", None))
    return np.frombuffer(answer.vectors, "<f4").reshape(-1, 2), answer


async def vectors_of(photos: list[bytes], *, mirrors: bool) -> Any:
    vectors, answer = await answer_to(embed_pb2.EmbedRequest(photos=photos), mirrors=mirrors)
    assert not answer.rows_of_photos
    return vectors


async def test_a_photo_and_its_mirror_image_have_the_same_vector() -> None:
    photo = photo_of(200, 50)
    mirrored = io.BytesIO()
    ImageOps.mirror(Image.open(io.BytesIO(photo))).save(mirrored, "PNG")
    photos = [photo, mirrored.getvalue(), photo_of(9, 9)]
    one, other, even = await vectors_of(photos, mirrors=True)
    assert one == pytest.approx(other)
    assert one == pytest.approx([0.5**0.5, 0.5**0.5])
    assert even == pytest.approx(one)
    one, other, _ = await vectors_of(photos, mirrors=False)
    assert one == pytest.approx(other[::-1])
    assert one != pytest.approx(other)


def framed(left: int, right: int) -> bytes:
    """A photo whose middle half is two colours; around it, everything is black."""
    image = Image.new("L", (80, 80), 0)
    image.paste(left, (20, 20, 40, 60))
    image.paste(right, (40, 20, 60, 60))
    output = io.BytesIO()
    image.save(output, "PNG")
    return output.getvalue()


async def test_zoomed_views_follow_the_photo_and_mirror_images_are_averaged_with_their_view() -> (
    None
):
    request = embed_pb2.EmbedRequest(photos=[framed(200, 50), photo_of(9, 9)], zooms=True)
    vectors, answer = await answer_to(request, zooms=True)
    assert list(answer.rows_of_photos) == [3, 3]
    whole, _, half, *even = vectors
    assert half == pytest.approx(unit_length(np.array([[201, 51]], np.float32))[0], abs=1e-3)
    assert whole != pytest.approx(half, abs=1e-3)
    assert np.stack(even) == pytest.approx(np.full((3, 2), 0.5**0.5))
    mirrored, _ = await answer_to(request, zooms=True, mirrors=True)
    assert mirrored == pytest.approx(np.full((6, 2), 0.5**0.5))


@pytest.mark.parametrize(("asked", "allowed"), [(True, False), (False, True)])
async def test_there_are_no_zoomed_views_that_are_not_both_asked_for_and_allowed(
    asked: bool, allowed: bool
) -> None:
    request = embed_pb2.EmbedRequest(photos=[framed(200, 50)], zooms=asked)
    vectors, answer = await answer_to(request, zooms=allowed)
    assert len(vectors) == 1
    assert not answer.rows_of_photos


async def test_the_part_that_a_caller_chose_is_not_zoomed_and_other_photos_are() -> None:
    request = embed_pb2.EmbedRequest(photos=[framed(200, 50)] * 2, zooms=True)
    request.boxes.add(left=0.25, top=0.25, right=0.75, bottom=0.75)
    request.boxes.add()
    vectors, answer = await answer_to(request, zooms=True)
    assert list(answer.rows_of_photos) == [1, 3]
    assert vectors[0] == pytest.approx(vectors[3], abs=1e-2)


@given(arrays.arrays(np.float32, (6, 4), elements=st.floats(-1, 1, width=32)))
def test_the_mean_has_unit_length_also_if_views_cancel_each_other_out(vectors: Any) -> None:
    usable = vectors[np.linalg.norm(vectors, axis=1) > 0.1]
    views = unit_length(usable[: len(usable) // 2 * 2])
    views = np.concatenate([views, -views])
    for of in (views, np.concatenate([views[: len(views) // 2]] * 2)):
        if len(of):
            means = mean_of_views(of)
            assert np.linalg.norm(means, axis=1) == pytest.approx(1, abs=1e-5)
