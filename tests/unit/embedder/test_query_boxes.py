"""Parts of query photos: what EmbedService embeds, and what it refuses by the field's name."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from PIL import Image

from services.embedder.batching import BatchedModel
from services.embedder.handlers import EmbedServicer
from services.embedder.query_decoder import QueryDecoder, QueryLimits
from shashin.rpc.channel import open_channel
from shashin.rpc.server import grpc_server
from shashin.runtime.scope import Loop
from shashin.v1 import embed_pb2, embed_pb2_grpc
from tests.support.loops import running
from tests.unit.embedder.colour_model import ColourModel

RED, BLUE = (200, 0, 0), (0, 0, 200)
LIMITS = QueryLimits(photos=100, photo_bytes=100_000_000, decoders=1, decode_bytes=64_000_000)

Box = embed_pb2.PhotoBox


@pytest.fixture
async def embed() -> AsyncIterator[embed_pb2_grpc.EmbedServiceAsyncStub]:
    with ThreadPoolExecutor(1) as executor, QueryDecoder(LIMITS) as decoder:
        model = BatchedModel(ColourModel(), executor, batch_photos=4)
        servicer = EmbedServicer(model, decoder)

        def add(server: grpc.aio.Server) -> None:
            embed_pb2_grpc.add_EmbedServiceServicer_to_server(servicer, server)

        async with (
            running(Loop("model", model.run)),
            grpc_server(add, host="127.0.0.1", port=0, drain_seconds=0) as port,
            open_channel(f"127.0.0.1:{port}") as channel,
        ):
            yield embed_pb2_grpc.EmbedServiceStub(channel)


def red_and_blue(orientation: int = 1) -> bytes:
    """Return a photo that is red on the left and blue on the right, as stored."""
    image = Image.new("RGB", (120, 80), RED)
    image.paste(BLUE, (60, 0, 120, 80))
    exif = Image.Exif()
    exif[0x0112] = orientation
    made = io.BytesIO()
    image.save(made, "PNG", exif=exif)
    return made.getvalue()


async def vectors(
    embed: embed_pb2_grpc.EmbedServiceAsyncStub,
    photos: list[bytes],
    boxes: list[embed_pb2.PhotoBox],
) -> list[str]:
    """Return the colour of each vector."""
    answer = await embed.Embed(embed_pb2.EmbedRequest(photos=photos, boxes=boxes))
    rows = np.frombuffer(answer.vectors, "<f4").reshape(len(photos), answer.dimensions)
    return ["red" if row[0] > 0.99 else "blue" if row[2] > 0.99 else "both" for row in rows]


async def test_each_photo_is_embedded_by_its_own_box(
    embed: embed_pb2_grpc.EmbedServiceAsyncStub,
) -> None:
    left, right = Box(left=0.1, top=0.1, right=0.4, bottom=0.9), Box(left=0.6, right=1, bottom=1)
    photos = [red_and_blue()] * 4
    assert await vectors(embed, photos, [left, right, Box(), Box(right=1, bottom=1)]) == [
        *("red", "blue", "both", "both")
    ]
    assert await vectors(embed, photos[:1], []) == ["both"]


async def test_a_box_is_of_the_upright_photo(embed: embed_pb2_grpc.EmbedServiceAsyncStub) -> None:
    # Turned clockwise by a quarter, so that red is at the top.
    photos = [red_and_blue(orientation=6)] * 2
    boxes = [Box(right=1, bottom=0.45), Box(top=0.55, right=1, bottom=1)]
    assert await vectors(embed, photos, boxes) == ["red", "blue"]


@pytest.mark.parametrize(
    ("boxes", "says"),
    [
        ([Box(right=1, bottom=1)], "boxes has 1 entries for 2 photos; expected none, or as many"),
        ([Box()] * 3, "boxes has 3 entries for 2 photos"),
        ([Box(), Box(left=-0.1, right=1, bottom=1)], "boxes[1].left is -0.1; expected 0 to 1"),
        ([Box(right=1.5, bottom=1), Box()], "boxes[0].right is 1.5; expected 0 to 1"),
        ([Box(right=1, bottom=float("nan")), Box()], "boxes[0].bottom is nan; expected 0 to 1"),
        ([Box(), Box(right=1, top=float("inf"), bottom=1)], "boxes[1].top is inf; expected"),
        (
            [Box(left=0.75, right=0.5, bottom=1), Box()],
            "boxes[0].left is 0.75 and right is 0.5; expected left to be less than right",
        ),
        ([Box(), Box(right=1, top=0.5, bottom=0.5)], "expected top to be less than bottom"),
        (
            [Box(), Box(right=0.05, bottom=1)],
            "boxes[1]: the box has 6 x 80 pixels of a photo of 120 x 80; expected at least 8 x 8",
        ),
    ],
)
async def test_what_is_no_part_of_a_photo_is_refused_by_its_field(
    embed: embed_pb2_grpc.EmbedServiceAsyncStub, boxes: list[embed_pb2.PhotoBox], says: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await embed.Embed(embed_pb2.EmbedRequest(photos=[red_and_blue()] * 2, boxes=boxes))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (refused.value.details() or "").startswith("InvalidQuery: ")
    assert says in (refused.value.details() or "")
