"""The router's client while routers come and go."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest

from shashin.client.router import RouterClient
from shashin.errors import DeadlineExceeded, NoEndpoint
from shashin.local.ports import HOST, free_port
from shashin.v1 import search_pb2, search_pb2_grpc


class Answers(search_pb2_grpc.SearchServiceServicer):
    """A router that first refuses some calls."""

    def __init__(self, refused: int, status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self.refused, self.status = refused, status
        self.calls = 0

    async def Search(self, request: Any, context: Any) -> search_pb2.SearchResponse:  # noqa: N802
        self.calls += 1
        if self.calls <= self.refused:
            await context.abort(self.status, "it goes")
        return search_pb2.SearchResponse(model_id="one")

    async def _unused(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no test calls it")

    Locate = Status = _unused


async def started(port: int, answers: Answers) -> grpc.aio.Server:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    search_pb2_grpc.add_SearchServiceServicer_to_server(answers, server)
    server.add_insecure_port(f"{HOST}:{port}")
    await server.start()
    return server


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_a_query_is_sent_again_while_routers_go(status: grpc.StatusCode) -> None:
    port, answers = free_port(), Answers(refused=2, status=status)
    server = await started(port, answers)
    async with RouterClient(f"{HOST}:{port}") as router:
        answer = await router.search(vector=np.ones(4, np.float32))
    await server.stop(None)
    assert (answer.model_id, answers.calls) == ("one", 3)


async def test_a_query_outlives_the_death_of_its_router() -> None:
    port, dead = free_port(), Answers(refused=0)
    first = await started(port, dead)
    async with RouterClient(f"{HOST}:{port}") as router:
        await router.search(vector=np.ones(4, np.float32))
        await first.stop(None)
        asked = asyncio.ensure_future(router.search(vector=np.ones(4, np.float32)))
        second = await started(port, Answers(refused=0))
        assert (await asked).model_id == "one"
        await second.stop(None)


async def test_a_patient_client_waits_for_a_router_until_its_deadline() -> None:
    port = free_port()
    async with RouterClient(f"{HOST}:{port}", wait_for_ready=True) as router:
        asked = asyncio.ensure_future(router.search(vector=np.ones(4, np.float32)))
        for _ in range(3):
            with pytest.raises(DeadlineExceeded):
                await router.search(vector=np.ones(4, np.float32), within_seconds=0.5)
        assert not asked.done()
        server = await started(port, Answers(refused=0))
        assert (await asked).model_id == "one"
        await server.stop(None)


async def test_without_any_router_the_error_says_so() -> None:
    async with RouterClient(f"{HOST}:{free_port()}") as router:
        with pytest.raises(NoEndpoint, match="is unavailable"):
            await router.search(vector=np.ones(4, np.float32), within_seconds=5.0)
