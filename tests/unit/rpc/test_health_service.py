"""Who watches a server's health is told of every change, also of one that comes while it is told of another."""

from __future__ import annotations

from typing import cast

from grpc_health.v1 import health_pb2

from shashin.rpc.health_service import Context, HealthService

STATUS = health_pb2.HealthCheckResponse


async def test_a_drain_while_a_status_is_sent_is_told_before_the_watch_ends() -> None:
    health = HealthService()
    watch = health.Watch(health_pb2.HealthCheckRequest(), cast("Context", None))
    assert (await anext(watch)).status == STATUS.SERVING
    # The watch is where it sends: it has not gone on yet.
    health.drain()
    assert [answer.status async for answer in watch] == [STATUS.NOT_SERVING]


async def test_a_change_while_a_status_is_sent_is_told() -> None:
    health = HealthService()
    watch = health.Watch(health_pb2.HealthCheckRequest(), cast("Context", None))
    assert (await anext(watch)).status == STATUS.SERVING
    health.report({"": False})
    assert (await anext(watch)).status == STATUS.NOT_SERVING
    health.report({"": True})
    assert (await anext(watch)).status == STATUS.SERVING
