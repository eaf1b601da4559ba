"""A router with responses set by the test."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from shashin.v1 import search_pb2, search_pb2_grpc


@dataclass
class FakeRouter(search_pb2_grpc.SearchServiceServicer):
    hits: list[search_pb2.Hit] = field(default_factory=list)
    locations: dict[str, search_pb2.Location] = field(default_factory=dict)
    coverage: search_pb2.Coverage = field(
        default_factory=lambda: search_pb2.Coverage(complete=True)
    )
    endpoints: list[search_pb2.EndpointStatus] = field(
        default_factory=lambda: [
            search_pb2.EndpointStatus(name="indexer-0", tier="live", ready=True, rows=7)
        ]
    )
    refusal: tuple[grpc.StatusCode, str] | None = None
    notes: list[str] = field(default_factory=list)
    requests: list[search_pb2.SearchRequest] = field(default_factory=list)
    address: str = ""

    def Search(  # noqa: N802
        self, request: search_pb2.SearchRequest, context: Any
    ) -> search_pb2.SearchResponse:
        self.requests.append(request)
        if self.refusal is not None:
            context.abort(*self.refusal)
        return search_pb2.SearchResponse(
            hits=self.hits,
            coverage=self.coverage,
            model_id="demo-v1",
            endpoints=2,
            notes=self.notes,
        )

    def Locate(  # noqa: N802
        self, request: search_pb2.LocateRequest, context: Any
    ) -> search_pb2.LocateResponse:
        assert len(request.listing_ids) <= 1000
        return search_pb2.LocateResponse(
            locations=[self.locations[i] for i in request.listing_ids if i in self.locations]
        )

    def Status(  # noqa: N802
        self, request: search_pb2.StatusRequest, context: Any
    ) -> search_pb2.StatusResponse:
        return search_pb2.StatusResponse(
            model_id="demo-v1", endpoints=self.endpoints, coverage=self.coverage
        )


@contextmanager
def fake_router() -> Iterator[FakeRouter]:
    router = FakeRouter()
    server = grpc.server(ThreadPoolExecutor(2))
    search_pb2_grpc.add_SearchServiceServicer_to_server(router, server)
    router.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield router
    finally:
        server.stop(None)
