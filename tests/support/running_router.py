"""A router as it starts in production, over real endpoints with small shards, in one process."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from services.router.__main__ import serve
from services.router.settings import RouterSettings
from shashin.local.ports import free_port
from shashin.model_space import ModelSpace
from shashin.offsets.coverage import LiveReport, Position
from shashin.rpc.router_access import RouterAccess, open_router_channel
from shashin.rpc.server import grpc_server
from shashin.runtime.health import Health
from shashin.runtime.scope import ServiceScope
from shashin.serving.endpoint import IndexEndpoint
from shashin.serving.served_shards import ServedShards
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.kinds.registry import DEFAULT_KIND, growing_kind
from shashin.shards.open_shard import OpenShard
from shashin.v1 import (
    embed_pb2,
    embed_pb2_grpc,
    index_pb2,
    index_pb2_grpc,
    search_pb2,
    search_pb2_grpc,
)
from tests.support.hidden_map import HiddenMap
from tests.support.waiting import until

MODEL = "test-model"
DIMENSIONS = 16

Vector = npt.NDArray[np.float32]


def vector_of(listing_id: str, version: int = 1, photo: int = 0) -> Vector:
    """Return a unit vector, (16,), that only this photo has."""
    seed = zlib.crc32(f"{listing_id}/{version}/{photo}".encode())
    return unit(np.random.default_rng(seed).normal(size=DIMENSIONS))


def unit(vector: npt.ArrayLike) -> Vector:
    """Return the vector at unit length."""
    array = np.asarray(vector, dtype=np.float64)
    return (array / np.linalg.norm(array)).astype(np.float32)


SHOES = RowAttributes("shoes", "", 1200, "JPY")


@dataclass(frozen=True)
class Listing:
    """One record of the log."""

    listing_id: str
    version: int = 1
    photos: int = 1
    attributes: RowAttributes = SHOES
    vectors: tuple[Vector, ...] = ()
    """One per photo; by default the vectors that only these photos have."""

    def rows(self) -> list[NewRow]:
        """Return its rows."""
        vectors = self.vectors or tuple(
            vector_of(self.listing_id, self.version, photo) for photo in range(self.photos)
        )
        return [
            NewRow(
                Row(
                    self.listing_id,
                    self.version,
                    photo,
                    self.attributes,
                    photo_uri=f"s3://photos/{self.listing_id}/{self.version}/{photo}.jpg",
                    photo_hash=1 + photo,
                ),
                vector,
            )
            for photo, vector in enumerate(vectors)
        ]


def shard_of(
    listings: Iterable[Listing],
    *,
    partition: int = 0,
    from_offset: int = 0,
) -> OpenShard:
    """Return a shard of the log from an offset on, one record per listing."""
    shard = OpenShard(
        partition,
        from_offset,
        ModelSpace(MODEL, DIMENSIONS),
        growing_kind(DEFAULT_KIND),
        HiddenMap(),
    )
    for offset, listing in enumerate(listings, start=from_offset):
        shard.add(listing.rows(), position=offset + 1, bucket_start=0)
    return shard


class HeldBackEndpoint(IndexEndpoint):
    """Answers searches once it is released."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.released = asyncio.Event()
        self.searching = asyncio.Event()

    async def Search(  # noqa: N802
        self, request: index_pb2.IndexSearchRequest, context: Any
    ) -> index_pb2.IndexSearchResponse:
        self.searching.set()
        await self.released.wait()
        return await super().Search(request, context)


class CountingEndpoint(IndexEndpoint):
    """Counts its calls."""

    searches = lookups = 0

    async def Search(  # noqa: N802
        self, request: index_pb2.IndexSearchRequest, context: Any
    ) -> index_pb2.IndexSearchResponse:
        self.searches += 1
        return await super().Search(request, context)

    async def Lookup(  # noqa: N802
        self, request: index_pb2.LookupRequest, context: Any
    ) -> index_pb2.LookupResponse:
        self.lookups += 1
        return await super().Lookup(request, context)


class UndescribedEndpoint(CountingEndpoint):
    """Answers no Describe until it is released."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.released = asyncio.Event()

    async def Describe(  # noqa: N802
        self, request: index_pb2.DescribeRequest, context: Any
    ) -> index_pb2.DescribeResponse:
        await self.released.wait()
        return await super().Describe(request, context)


class ShallowEndpoint(IndexEndpoint):
    """Fails if a request's k exceeds that of its first request."""

    asked: int | None = None

    async def Search(  # noqa: N802
        self, request: index_pb2.IndexSearchRequest, context: Any
    ) -> index_pb2.IndexSearchResponse:
        if self.asked is None:
            self.asked = request.k
        elif request.k > self.asked:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too deep")
        return await super().Search(request, context)


class SwappedEndpoint(IndexEndpoint):
    """Answers its first search, and holds another model from then on."""

    async def Search(  # noqa: N802
        self, request: index_pb2.IndexSearchRequest, context: Any
    ) -> index_pb2.IndexSearchResponse:
        answer = await super().Search(request, context)
        self._space = ModelSpace("other-model", self._space.dimensions)
        return answer


class NoLookupEndpoint(IndexEndpoint):
    """Cannot look listings up."""

    async def Lookup(  # noqa: N802
        self, request: index_pb2.LookupRequest, context: Any
    ) -> index_pb2.LookupResponse:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "no lookup today")
        raise AssertionError


@dataclass
class FakeEmbedder(embed_pb2_grpc.EmbedServiceServicer):
    """Embeds a photo of float32 bytes to that vector, any photo to its own one, or refuses."""

    model_id: str = MODEL
    vector: Vector | None = None
    refusal: tuple[grpc.StatusCode, str] | None = None
    calls: int = 0
    hangs: bool = False
    """Whether it never answers."""
    boxes: list[list[tuple[float, ...]]] = field(default_factory=list)
    """Those of each call."""
    zoomed: list[Vector] = field(default_factory=list)
    """The vectors of zoomed views of any photo, for calls that ask for them."""

    async def Embed(  # noqa: N802
        self, request: embed_pb2.EmbedRequest, context: Any
    ) -> embed_pb2.EmbedResponse:
        self.calls += 1
        self.boxes.append([(b.left, b.top, b.right, b.bottom) for b in request.boxes])
        if self.hangs:
            await asyncio.Event().wait()
        if self.refusal is not None:
            await context.abort(*self.refusal)
        vectors = b"".join(request.photos)
        if self.vector is not None:
            vectors = self.vector.astype("<f4").tobytes() * len(request.photos)
        dimensions = len(vectors) // len(request.photos) // 4
        rows = []
        if request.zooms and self.zoomed:
            assert len(request.photos) == 1
            rows = [1 + len(self.zoomed)]
            vectors += b"".join(vector.astype("<f4").tobytes() for vector in self.zoomed)
        return embed_pb2.EmbedResponse(
            model_id=self.model_id,
            dimensions=dimensions,
            vectors=vectors,
            rows_of_photos=rows,
        )


@dataclass
class RunningEndpoint:
    """One endpoint that answers gRPC until it is stopped."""

    name: str
    role: str
    tier: str
    address: str
    handlers: Any
    server: AsyncExitStack
    served: ServedShards | None = None
    announced_model: str = ""
    """The model announced in discovery; empty if none."""
    group: str = ""
    zone: str = ""

    def entry(self) -> dict[str, str]:
        """Return its line of the discovery file."""
        return {
            "name": self.name,
            "role": self.role,
            "tier": self.tier,
            "address": self.address,
            "model_id": self.announced_model,
            "group": self.group,
            "zone": self.zone,
        }

    async def stop(self) -> None:
        """Stop answering."""
        await self.server.aclose()


@dataclass
class System:
    """A router and the endpoints that a test starts."""

    folder: Path
    health: Health
    stub: search_pb2_grpc.SearchServiceAsyncStub
    stack: AsyncExitStack
    executor: ThreadPoolExecutor
    host: str = "127.0.0.1"
    """The address that endpoints listen on."""
    rest: str = ""
    """URL of the router's REST."""
    channel: grpc.aio.Channel | None = None
    """To the router."""
    settings: RouterSettings | None = None
    stop: Callable[[], Awaitable[None]] | None = None
    """Stops the router, which drains."""
    endpoints: list[RunningEndpoint] = field(default_factory=list)
    active: dict[str, Any] | None = None
    """The active model announced in discovery; None if none is."""

    async def index(
        self,
        name: str,
        tier: str,
        *shards: OpenShard,
        model_id: str = MODEL,
        kind: type[IndexEndpoint] = IndexEndpoint,
        positions: dict[int, Position] | None = None,
        report: LiveReport | None = None,
        announce: bool = True,
        announced_model: str = "",
        group: str = "",
        zone: str = "",
    ) -> RunningEndpoint:
        """Start an endpoint over shards; ``live`` reports the ends of its shards as positions.

        ``announced_model``, ``group`` and ``zone`` are announced in discovery; none by default.
        """
        served = ServedShards()
        served.hidden_loaded = True
        served.serve(shards)

        def reported(_shards: Any) -> LiveReport:
            if report is not None:
                return report
            if positions is not None:
                return LiveReport(dict(positions))
            if tier != "live":
                return LiveReport()
            return LiveReport(
                {s.partition: Position(0, s.position) for s in served.snapshot().shards}  # type: ignore[attr-defined]
            )

        handlers = kind(
            served,
            space=ModelSpace(model_id, DIMENSIONS),
            tier=tier,
            executor=self.executor,
            report=reported,
        )

        def add(server: grpc.aio.Server) -> None:
            index_pb2_grpc.add_IndexServiceServicer_to_server(handlers, server)

        role = "indexer" if tier == "live" else "index-server"
        started = await self._start(
            name,
            role,
            tier,
            add,
            handlers,
            announce=announce,
            announced_model=announced_model,
            group=group,
            zone=zone,
        )
        started.served = served
        return started

    async def embedder(
        self, name: str, handlers: FakeEmbedder, *, announced_model: str = ""
    ) -> RunningEndpoint:
        """Start an embedder."""

        def add(server: grpc.aio.Server) -> None:
            embed_pb2_grpc.add_EmbedServiceServicer_to_server(handlers, server)

        return await self._start(
            name, "embedder", "", add, handlers, announced_model=announced_model
        )

    async def _start(
        self,
        name: str,
        role: str,
        tier: str,
        add: Any,
        handlers: Any,
        *,
        announced_model: str,
        announce: bool = True,
        group: str = "",
        zone: str = "",
    ) -> RunningEndpoint:
        server = AsyncExitStack()
        self.stack.push_async_callback(server.aclose)
        port = await server.enter_async_context(
            grpc_server(add, host=self.host, port=0, drain_seconds=0)
        )
        started = RunningEndpoint(
            name,
            role,
            tier,
            f"{self.host}:{port}",
            handlers,
            server,
            announced_model=announced_model,
            group=group,
            zone=zone,
        )
        if announce:
            self.endpoints.append(started)
            self.announce()
        return started

    def announce(self, *entries: dict[str, str]) -> None:
        """Write the discovery file: the endpoints, and further entries."""
        document = {
            "endpoints": [*(e.entry() for e in self.endpoints), *entries],
            "active_model": self.active,
        }
        written = self.folder / "discovery.new"
        written.write_text(json.dumps(document))
        written.rename(self.folder / "discovery.json")

    async def status(self) -> search_pb2.StatusResponse:
        """Ask the router for its status."""
        return await self.stub.Status(search_pb2.StatusRequest())

    async def until_models_are(self, **models: str) -> search_pb2.StatusResponse:
        """Wait until the router knows exactly these endpoints by the models that they hold."""

        async def known() -> search_pb2.StatusResponse | None:
            status = await self.status()
            found = {e.name: e.model_id for e in status.endpoints}
            return (
                status if found == models and not any(e.error for e in status.endpoints) else None
            )

        found: search_pb2.StatusResponse = await until(known, f"endpoints of {models} are known")
        return found

    async def until_described(self, *names: str) -> search_pb2.StatusResponse:
        """Wait until the router knows exactly these endpoints, all ready; by default all."""
        wanted = sorted(names or (e.name for e in self.endpoints if e.role != "embedder"))

        async def described() -> search_pb2.StatusResponse | None:
            status = await self.status()
            ready = [e.name for e in status.endpoints if e.ready]
            return status if ready == wanted == [e.name for e in status.endpoints] else None

        found: search_pb2.StatusResponse = await until(described, f"{wanted} are described")
        return found

    async def search(
        self, vector: Vector | None = None, *, caller_seconds: float = 30.0, **fields: Any
    ) -> search_pb2.SearchResponse:
        """Search; unless a test sets one, the deadline is far beyond what any machine needs."""
        if vector is not None:
            fields["vector"] = vector.astype("<f4").tobytes()
        fields.setdefault("deadline_ms", 30_000)
        return await self.stub.Search(search_pb2.SearchRequest(**fields), timeout=caller_seconds)


@asynccontextmanager
async def running_system(
    folder: Path,
    *,
    discovery: str = "",
    host: str = "127.0.0.1",
    zone: str = "",
    access: RouterAccess | None = None,
    name: str = "",
    **front: Any,
) -> AsyncIterator[System]:
    """Run the router over an empty discovery, and stop everything at the end.

    ``discovery`` is its URI if it is not the file of ``announce``, ``zone`` its zone. ``front`` are settings
    of its port; if it has TLS, ``access`` is what the stub uses, and ``name`` a name of its certificate.
    """
    settings = RouterSettings(
        discovery=discovery or (folder / "discovery.json").as_uri(),
        model_id=MODEL,
        dimensions=DIMENSIONS,
        grpc_port=free_port(),
        rest_port=free_port(),
        discovery_seconds=0.02,
        describe_seconds=0.05,
        zone=zone,
        **{"renew_seconds": 0.05, "drain_seconds": 0, **front},
    )
    health, stop_event = Health(), asyncio.Event()
    scope = ServiceScope("router", settings, health, stop_event)
    async with AsyncExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(2))
        router = asyncio.ensure_future(serve(scope))

        async def stop() -> None:
            stop_event.set()
            await asyncio.wait({router})

        async def stopped() -> None:
            await stop()
            await router

        stack.push_async_callback(stopped)
        address = f"grpcs://{name}" if name else "grpc://127.0.0.1"
        channel = await stack.enter_async_context(
            open_router_channel(f"{address}:{settings.grpc_port}", access or RouterAccess())
        )
        await ready(channel, router)
        stub = search_pb2_grpc.SearchServiceStub(channel)
        rest = f"http://127.0.0.1:{settings.rest_port}"
        yield System(folder, health, stub, stack, executor, host, rest, channel, settings, stop)


async def ready(channel: grpc.aio.Channel, router: asyncio.Future[None]) -> None:
    """Wait until a channel is connected; raises what the router ends with before that."""
    connected = asyncio.ensure_future(channel.channel_ready())
    await asyncio.wait({connected, router}, return_when=asyncio.FIRST_COMPLETED)
    if not connected.done():
        connected.cancel()
        await router


def hits(answer: search_pb2.SearchResponse) -> list[tuple[str, int, int]]:
    """Return listing, version and photo number of each hit."""
    return [(hit.listing_id, hit.version, hit.photo_number) for hit in answer.hits]


def ranges(messages: Iterable[index_pb2.OffsetRange]) -> list[tuple[int, int, int]]:
    """Return partition, from and to of each range."""
    return [(r.partition, r.from_offset, r.to_offset) for r in messages]
