"""EmbedStage for listings and EmbedServicer for queries."""

from __future__ import annotations

import asyncio
import io
import re
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import cast

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from prometheus_client import REGISTRY

from services.embedder.batching import BatchedModel
from services.embedder.handlers import Context, EmbedServicer, EmbedStage
from services.embedder.query_decoder import QueryDecoder, QueryLimits
from services.embedder.settings import EmbedderSettings
from shashin.errors import ModelError, SettingsError
from shashin.kafka.records import InRecord
from shashin.photos import DecodeBudget
from shashin.rpc.channel import open_channel
from shashin.rpc.server import grpc_server
from shashin.runtime.settings import load_settings
from shashin.v1 import embed_pb2, embed_pb2_grpc, events_pb2
from tests.support.loops import loop_scope
from tests.support.waiting import until
from tests.unit.embedder.colour_model import ColourModel

RED = (200, 0, 0)


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (60, 40)) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", size, colour).save(made, "JPEG", quality=95)
    return made.getvalue()


@pytest.fixture
def colours() -> ColourModel:
    return ColourModel()


@pytest.fixture
async def model(colours: ColourModel) -> AsyncIterator[BatchedModel]:
    stopping = asyncio.Event()
    with ThreadPoolExecutor(1) as executor:
        batching = BatchedModel(colours, executor, batch_photos=4)
        running = asyncio.ensure_future(batching.run(loop_scope(stop=stopping)))
        yield batching
        colours.unblocked.set()
        stopping.set()
        await running


@pytest.fixture
async def stage(model: BatchedModel) -> AsyncIterator[EmbedStage]:
    with ThreadPoolExecutor(1) as executor:
        yield EmbedStage(model, executor)


def record(*thumbnails: bytes | None, listing_id: str = "lamp") -> InRecord:
    """Return a listing record; None is a photo that the downloader failed on."""
    listing = events_pb2.DownloadedListing(
        listing_id=listing_id,
        version=4,
        kind=events_pb2.LISTING_KIND_UPDATED,
        attributes=events_pb2.Attributes(brand="Kite"),
    )
    listing.occurred_at.seconds = 99
    for number, data in enumerate(thumbnails):
        photo = listing.photos.add(photo_number=number, content_sha256=bytes([number]) * 32)
        if data is None:
            photo.failure.reason = "PhotoMissing"
        else:
            photo.thumbnail = data
    return InRecord("images.downloaded", 2, 5, 0, b"lamp", listing.SerializeToString())


async def test_a_listing_becomes_vectors_on_its_own_partition(stage: EmbedStage) -> None:
    (outcome,) = await stage.process([record(jpeg((200, 0, 0)), jpeg((0, 200, 0)))])
    (output,) = outcome.outputs
    assert (output.topic, output.partition, output.key) == ("vectors.embedded", 2, b"lamp")
    listing = events_pb2.EmbeddedListing.FromString(output.value)
    assert (listing.listing_id, listing.version, listing.occurred_at.seconds) == ("lamp", 4, 99)
    assert listing.kind == events_pb2.LISTING_KIND_UPDATED
    assert (listing.model_id, listing.dimensions) == ("colours", 3)
    assert listing.attributes.brand == "Kite"
    vectors = [np.frombuffer(v.vector, "<f2").astype(float) for v in listing.vectors]
    assert vectors[0] == pytest.approx([1, 0, 0], abs=0.02)
    assert vectors[1] == pytest.approx([0, 1, 0], abs=0.02)
    assert [v.content_sha256 for v in listing.vectors] == [b"\0" * 32, b"\1" * 32]


async def test_photos_that_the_downloader_failed_on_are_skipped_without_a_dlq_entry(
    stage: EmbedStage,
) -> None:
    (outcome,) = await stage.process([record(None, jpeg((200, 0, 0)))])
    listing = events_pb2.EmbeddedListing.FromString(outcome.outputs[0].value)
    assert [v.photo_number for v in listing.vectors] == [1]
    assert not outcome.dead_letters


async def test_an_undecodable_thumbnail_is_dead_lettered_and_the_others_are_embedded(
    stage: EmbedStage,
) -> None:
    (outcome,) = await stage.process([record(b"broken", jpeg((200, 0, 0)))])
    assert len(outcome.outputs) == 1
    (dead_letter,) = outcome.dead_letters
    assert (dead_letter.scope, dead_letter.photo_number) == ("photo", 0)
    assert dead_letter.error.reason == "PhotoUndecodable"


@pytest.mark.parametrize("thumbnails", [(), (None,), (b"broken",)])
async def test_a_listing_without_a_usable_thumbnail_is_dead_lettered(
    stage: EmbedStage, thumbnails: tuple[bytes | None, ...]
) -> None:
    (outcome,) = await stage.process([record(*thumbnails)])
    assert not outcome.outputs
    assert outcome.dead_letters[0].error.reason == "NoUsablePhoto"


async def test_unparsable_records_do_not_block_others(stage: EmbedStage) -> None:
    broken = InRecord("images.downloaded", 0, 0, 0, b"x", b"\xff\xff")
    nameless = record(jpeg((1, 2, 3)), listing_id="")
    outcomes = await stage.process([broken, nameless, record(jpeg((200, 0, 0)))])
    reasons = [[dead_letter.error.reason for dead_letter in o.dead_letters] for o in outcomes]
    assert reasons == [["UnparsableRecord"], ["UnparsableRecord"], []]
    assert len(outcomes[2].outputs) == 1


class BrokenModel(ColourModel):
    """Returns ``wrong`` as the vector of every red photo."""

    def __init__(self, wrong: list[float]) -> None:
        super().__init__()
        self._wrong = np.array(wrong, dtype=np.float32)

    def embed(self, photos: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        vectors = super().embed(photos)
        vectors[vectors[:, 0] > 0.9] = self._wrong
        return vectors


@asynccontextmanager
async def broken(wrong: list[float]) -> AsyncIterator[BatchedModel]:
    stopping = asyncio.Event()
    with ThreadPoolExecutor(1) as executor:
        batching = BatchedModel(BrokenModel(wrong), executor, batch_photos=4)
        running = asyncio.ensure_future(batching.run(loop_scope(stop=stopping)))
        yield batching
        stopping.set()
        await running


WRONG_VECTORS = [
    ([0, 0, 0], "all zeros"),
    ([np.nan, 0, 0], "not finite"),
    ([1, np.inf, 0], "not finite"),
    ([1e9, 0, 0], "not finite|of length 1e"),  # infinite in float16
    ([30, 40, 0], "of length 50; expected 1"),
]


@pytest.mark.parametrize(("wrong", "says"), WRONG_VECTORS)
async def test_a_vector_that_is_not_of_unit_length_is_a_dead_letter_and_never_written(
    wrong: list[float], says: str
) -> None:
    async with broken(wrong) as model:
        with ThreadPoolExecutor(1) as executor:
            stage = EmbedStage(model, executor)
            some, none = await stage.process(
                [record(jpeg((200, 0, 0)), jpeg((0, 200, 0))), record(jpeg((200, 0, 0)))]
            )
    (output,) = some.outputs
    listing = events_pb2.EmbeddedListing.FromString(output.value)
    assert [v.photo_number for v in listing.vectors] == [1]
    (dead_letter,) = some.dead_letters
    assert (dead_letter.scope, dead_letter.photo_number) == ("photo", 0)
    assert (dead_letter.error.reason, dead_letter.step) == ("WrongVector", "embedder.embed")
    assert re.search(
        f"photo 0: model colours returned a vector .*{says}", dead_letter.error.message
    )
    assert not none.outputs
    (dead_letter,) = none.dead_letters
    assert (dead_letter.error.reason, dead_letter.scope) == ("NoUsablePhoto", "record")
    assert re.search(f"photo 0: WrongVector: .*{says}", dead_letter.error.message)


@pytest.mark.parametrize(("wrong", "says"), WRONG_VECTORS)
async def test_a_query_photo_without_a_usable_vector_fails_as_the_models_fault(
    wrong: list[float], says: str
) -> None:
    async with broken(wrong) as model:
        with QueryDecoder(LIMITS) as decoder:
            servicer = EmbedServicer(model, decoder)
            request = embed_pb2.EmbedRequest(photos=[jpeg((0, 200, 0)), jpeg((200, 0, 0))])
            with pytest.raises(ModelError, match=f"vector .*({says}).* for photo 1") as failed:
                await servicer.Embed(request, cast("Context", None))
    assert failed.value.grpc_status == "INTERNAL", "so that the router asks another embedder"


LIMITS = QueryLimits(photos=100, photo_bytes=100_000_000, decoders=1, decode_bytes=64_000_000)


@asynccontextmanager
async def serving(
    model: BatchedModel, limits: QueryLimits = LIMITS
) -> AsyncIterator[embed_pb2_grpc.EmbedServiceAsyncStub]:
    with QueryDecoder(limits) as decoder:
        servicer = EmbedServicer(model, decoder)

        def add(server: grpc.aio.Server) -> None:
            embed_pb2_grpc.add_EmbedServiceServicer_to_server(servicer, server)

        async with (
            grpc_server(add, host="127.0.0.1", port=0, drain_seconds=0) as port,
            open_channel(f"127.0.0.1:{port}") as channel,
        ):
            yield embed_pb2_grpc.EmbedServiceStub(channel)


@pytest.fixture
async def embed(model: BatchedModel) -> AsyncIterator[embed_pb2_grpc.EmbedServiceAsyncStub]:
    async with serving(model) as stub:
        yield stub


async def test_queries_return_unit_vectors_and_the_model(
    embed: embed_pb2_grpc.EmbedServiceAsyncStub,
) -> None:
    answer = await embed.Embed(
        embed_pb2.EmbedRequest(photos=[jpeg((0, 0, 200)), jpeg((200, 0, 0))])
    )
    vectors = np.frombuffer(answer.vectors, "<f4").reshape(-1, answer.dimensions)
    assert answer.model_id == "colours"
    assert vectors == pytest.approx(np.array([[0, 0, 1], [1, 0, 0]]), abs=0.02)
    assert answer.seconds > 0


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        ([], "InvalidQuery: photos has 0 entries"),
        ([b"x"] * 33, "InvalidQuery: photos has 33 entries"),
        ([b""], "PhotoEmpty"),
        ([b"text"], "PhotoUndecodable"),
        ([b"x" * (16 * 1024 * 1024 + 1)], "PhotoTooLarge"),
    ],
)
async def test_bad_queries_are_rejected(
    embed: embed_pb2_grpc.EmbedServiceAsyncStub, photos: list[bytes], message: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=message) as rejected:
        await embed.Embed(embed_pb2.EmbedRequest(photos=photos))
    assert rejected.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_query_does_not_wait_behind_thumbnails_of_listings(
    model: BatchedModel, embed: embed_pb2_grpc.EmbedServiceAsyncStub
) -> None:
    unblocked = threading.Event()
    with ThreadPoolExecutor(1) as busy:
        busy.submit(unblocked.wait, 60)  # as if a batch of thumbnails were being decoded
        listing = asyncio.ensure_future(EmbedStage(model, busy).process([record(jpeg(RED))]))
        try:
            answer = await embed.Embed(embed_pb2.EmbedRequest(photos=[jpeg(RED)]))
            assert answer.dimensions == 3
            assert not listing.done()
        finally:
            unblocked.set()
        assert (await listing)[0].outputs


@pytest.mark.parametrize("size", [(3000, 2000), (6000, 300)])
async def test_photos_wait_for_the_model_at_the_size_that_it_uses(
    size: tuple[int, int], stage: EmbedStage, colours: ColourModel, model: BatchedModel
) -> None:
    async with serving(model) as embed:
        await embed.Embed(embed_pb2.EmbedRequest(photos=[jpeg(RED, size)]))
    await stage.process([record(jpeg(RED, size))])
    assert len(colours.sizes) == 2
    for width, height in colours.sizes:
        assert min(width, height) == 256
        assert max(width, height) <= 1024


def png(side: int) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (side, side), RED).save(made, "PNG")
    return made.getvalue()


async def test_a_query_photo_that_takes_too_much_memory_is_refused_and_others_are_embedded(
    embed: embed_pb2_grpc.EmbedServiceAsyncStub,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="PhotoTooLarge: decoding the photo takes") as no:
        await embed.Embed(embed_pb2.EmbedRequest(photos=[png(200), png(4000)]))
    assert no.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await embed.Embed(embed_pb2.EmbedRequest(photos=[png(200)]))).dimensions == 3


async def test_a_call_of_many_large_photos_is_answered_with_one_decoded_at_a_time(
    model: BatchedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, lock = DecodeBudget.reserve, threading.Lock()
    under_way = peak = decoded = 0

    @contextmanager
    def counted(budget: DecodeBudget, wanted: int) -> Iterator[None]:
        nonlocal under_way, peak, decoded
        with reserve(budget, wanted):
            with lock:
                under_way, decoded = under_way + 1, decoded + 1
                peak = max(peak, under_way)
            yield
            with lock:
                under_way -= 1

    monkeypatch.setattr(DecodeBudget, "reserve", counted)
    # The budget has room for one of them, which takes 16 MB and buffers; together they take 100.
    limits = replace(LIMITS, decoders=4, decode_bytes=40_000_000)
    async with serving(model, limits) as embed:
        calls = [embed.Embed(embed_pb2.EmbedRequest(photos=[png(2000)] * 3)) for _ in range(2)]
        answers = await asyncio.gather(*calls)
    assert [len(answer.vectors) for answer in answers] == [36, 36]
    assert (decoded, peak) == (6, 1)


@pytest.mark.parametrize(
    "limits", [replace(LIMITS, photos=5), replace(LIMITS, photo_bytes=5 * len(jpeg((200, 0, 0))))]
)
async def test_queries_beyond_a_limit_are_refused_before_they_are_decoded_and_listings_are_not(
    limits: QueryLimits, model: BatchedModel, colours: ColourModel, stage: EmbedStage
) -> None:
    colours.unblocked.clear()
    refused = refused_photos()
    async with serving(model, limits) as embed:
        admitted = [
            asyncio.ensure_future(embed.Embed(embed_pb2.EmbedRequest(photos=[jpeg(RED)] * count)))
            for count in (1, 4)
        ]
        await until(lambda: queries_under_way() == 5, "five query photos are under way")
        with pytest.raises(grpc.aio.AioRpcError, match=r"5 query photos of .* retry later") as no:
            # The timeout only ends the test if the call is admitted, and waits for the model.
            await embed.Embed(embed_pb2.EmbedRequest(photos=[jpeg(RED)]), timeout=60)
        assert no.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused_photos() == refused + 1
        listing = asyncio.ensure_future(stage.process([record(*[jpeg(RED)] * 9)]))
        colours.unblocked.set()
        assert [len((await call).vectors) for call in admitted] == [12, 48]
        assert (await listing)[0].outputs
        assert (await embed.Embed(embed_pb2.EmbedRequest(photos=[jpeg(RED)]))).dimensions == 3


def refused_photos() -> float:
    return REGISTRY.get_sample_value("shashin_embedder_refused_query_photos_total") or 0.0


def queries_under_way() -> float | None:
    return REGISTRY.get_sample_value("shashin_embedder_query_photos")


async def test_a_thumbnail_that_is_far_too_large_is_dead_lettered(stage: EmbedStage) -> None:
    (outcome,) = await stage.process([record(png(6000), jpeg(RED))])
    assert len(outcome.outputs) == 1
    assert [letter.error.reason for letter in outcome.dead_letters] == ["PhotoTooLarge"]


@pytest.mark.parametrize("roles", ["", "cook", "worker,cook"])
def test_unknown_roles_are_rejected_with_the_variable(
    roles: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHASHIN_ROLES", roles)
    with pytest.raises(SettingsError, match=r"SHASHIN_ROLES=.*expected worker, server"):
        load_settings(EmbedderSettings)
