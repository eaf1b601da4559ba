"""What any caller meets at the router's port: health, reflection, details of errors, bad requests, limits."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status.rpc_status import from_call

from shashin.v1 import search_pb2
from tests.support.running_router import Listing, System, running_system, shard_of, vector_of
from tests.support.waiting import until

SERVICE = "shashin.v1.SearchService"
STATUS = health_pb2.HealthCheckResponse


def health_of(system: System) -> health_pb2_grpc.HealthStub:
    assert system.channel is not None
    return health_pb2_grpc.HealthStub(system.channel)


async def checked(system: System, service: str) -> int | None:
    try:
        answer = await health_of(system).Check(health_pb2.HealthCheckRequest(service=service))
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.NOT_FOUND:
            return None
        raise
    return int(answer.status)


async def test_health_is_that_of_the_router_and_of_each_tier(system: System) -> None:
    assert [await checked(system, name) for name in ("", SERVICE)] == [STATUS.NOT_SERVING] * 2
    assert await checked(system, "shashin.tier.live") is None
    await system.index("indexer", "live", shard_of([Listing("a")]))
    hourly = await system.index("hourly", "hourly", shard_of([Listing("b")]))

    async def serving(*names: str) -> bool:
        return {await checked(system, name) for name in names} == {int(STATUS.SERVING)}

    names = ("", SERVICE, "shashin.tier.live", "shashin.tier.hourly")
    await until(lambda: serving(*names), "everything is serving")
    await hourly.stop()

    async def down() -> bool:
        return await checked(system, "shashin.tier.hourly") == int(STATUS.NOT_SERVING)

    await until(down, "the tier is not serving")
    assert await serving("", SERVICE, "shashin.tier.live")
    system.endpoints.remove(hourly)
    system.announce()

    async def unknown() -> bool:
        return await checked(system, "shashin.tier.hourly") is None

    await until(unknown, "the tier is unknown")


async def test_whoever_watches_a_tier_is_told_of_every_change(system: System) -> None:
    watch = health_of(system).Watch(health_pb2.HealthCheckRequest(service="shashin.tier.live"))
    assert (await watch.read()).status == STATUS.SERVICE_UNKNOWN
    indexer = await system.index("indexer", "live", shard_of([Listing("a")]))
    assert (await seen(watch, STATUS.SERVING)).status == STATUS.SERVING
    await indexer.stop()
    assert (await watch.read()).status == STATUS.NOT_SERVING
    await system.index("another", "live", shard_of([Listing("a")]))
    assert (await watch.read()).status == STATUS.SERVING
    watch.cancel()


async def test_a_router_that_drains_is_not_serving_before_it_refuses_calls(tmp_path: Path) -> None:
    async with running_system(tmp_path, drain_seconds=60) as system:
        await system.index("indexer", "live", shard_of([Listing("a")]))
        watch = health_of(system).Watch(health_pb2.HealthCheckRequest())
        assert (await seen(watch, STATUS.SERVING)).status == STATUS.SERVING
        assert system.stop is not None
        await system.stop()
        assert (await watch.read()).status == STATUS.NOT_SERVING
        # It ends by itself: otherwise the drain would have waited for it.
        assert await watch.read() == grpc.aio.EOF


async def seen(watch: Any, wanted: int) -> Any:
    """Read until a status comes, or the watch ends."""
    while True:
        answer = await watch.read()
        if answer == grpc.aio.EOF or answer.status == wanted:
            return answer


async def reflected(system: System, **request: str) -> reflection_pb2.ServerReflectionResponse:
    assert system.channel is not None
    stub = reflection_pb2_grpc.ServerReflectionStub(system.channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**request)]))
    answer: reflection_pb2.ServerReflectionResponse = await call.read()
    return answer


async def test_reflection_lists_and_describes_the_services(system: System) -> None:
    listed = await reflected(system, list_services="")
    names = {service.name for service in listed.list_services_response.service}
    assert names >= {SERVICE, "grpc.health.v1.Health"}
    described = await reflected(system, file_containing_symbol=SERVICE)
    files = described.file_descriptor_response.file_descriptor_proto
    assert any(b"SearchRequest" in file for file in files)


async def test_reflection_can_be_turned_off(tmp_path: Path) -> None:
    async with running_system(tmp_path, reflection=False) as system:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await reflected(system, list_services="")
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


GRPCURL = os.environ.get("SHASHIN_TEST_GRPCURL") or shutil.which("grpcurl")


@pytest.mark.skipif(GRPCURL is None, reason="SHASHIN_TEST_GRPCURL names no grpcurl")
async def test_grpcurl_lists_describes_and_calls(system: System) -> None:
    import asyncio

    assert GRPCURL is not None
    assert system.settings is not None
    address = f"127.0.0.1:{system.settings.grpc_port}"

    async def grpcurl(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            GRPCURL, "-plaintext", *arguments, stdout=-1, stderr=-2
        )
        output, _ = await process.communicate()
        return output.decode()

    assert SERVICE in await grpcurl(address, "list")
    assert "rpc Search" in await grpcurl(address, "describe", SERVICE)
    assert "test-model" in await grpcurl(address, f"{SERVICE}/Status")
    refused = await grpcurl("-d", '{"k": 5000, "listing_id": "a"}', address, f"{SERVICE}/Search")
    assert "InvalidArgument" in refused
    assert "ErrorInfo" in refused


async def refusal(system: System, **fields: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await system.search(**fields)
    return refused.value


def details_of(error: grpc.aio.AioRpcError, kind: type[Any]) -> list[Any]:
    status = from_call(error)
    assert status.message == error.details()
    assert status.code == error.code().value[0]
    found = []
    for detail in status.details:
        one = kind()
        if detail.Unpack(one):
            found.append(one)
    return found


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"listing_id": "a", "k": 5000}, "k"),
        ({"listing_id": "a", "deadline_ms": 70_000}, "deadline_ms"),
        ({"listing_id": "a" * 1000}, "listing_id"),
        ({}, ""),
    ],
)
async def test_an_invalid_query_has_its_field_in_the_details(
    system: System, fields: dict[str, Any], field: str
) -> None:
    error = await refusal(system, **fields)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    (info,) = details_of(error, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain, dict(info.metadata)) == (
        "InvalidQuery",
        "shashin",
        {"retryable": "false"},
    )
    violations = [
        v for bad in details_of(error, error_details_pb2.BadRequest) for v in bad.field_violations
    ]
    assert [violation.field for violation in violations] == ([field] if field else [])
    assert not details_of(error, error_details_pb2.RetryInfo)


async def test_an_error_that_passes_says_so(system: System) -> None:
    error = await refusal(system, listing_id="a")
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    (info,) = details_of(error, error_details_pb2.ErrorInfo)
    assert (info.reason, dict(info.metadata)) == ("NoEndpoint", {"retryable": "true"})


def raw(system: System, method: str) -> Any:
    assert system.channel is not None
    return system.channel.unary_unary(f"/{SERVICE}/{method}")


@pytest.mark.parametrize("method", ["Search", "Locate"])
@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\x1a\x05ab",  # a field that is longer than the message
        b"\x1a\x02\xff\xfe\x0a\x02\xff\xfe",  # strings that are not UTF-8
        bytes(range(256)),
    ],
)
async def test_bytes_that_are_no_request_are_an_invalid_argument(
    system: System, method: str, data: bytes
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await raw(system, method)(data)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert (await system.status()).model_id == "test-model"


async def test_fields_of_later_versions_are_ignored(system: System) -> None:
    await system.index("indexer", "live", shard_of([Listing("a")]))
    await system.until_described()
    request = search_pb2.SearchRequest(vector=vector_of("a").astype("<f4").tobytes())
    later = request.SerializeToString() + b"\xc2\x3e\x03new"  # field 1000, a string
    answer = search_pb2.SearchResponse.FromString(await raw(system, "Search")(later))
    assert answer.hits[0].listing_id == "a"


async def test_a_request_beyond_the_limit_is_refused_and_one_within_is_not(tmp_path: Path) -> None:
    async with running_system(tmp_path, max_request_bytes=100_000) as system:
        error = await refusal(system, photo=bytes(100_001))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        error = await refusal(system, photo=bytes(90_000))
        assert error.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_connection_without_calls_ends(tmp_path: Path) -> None:
    async with running_system(tmp_path, connection_idle_seconds=1) as system:
        assert system.channel is not None
        await system.status()
        await until(
            lambda: system.channel.get_state() == grpc.ChannelConnectivity.IDLE,  # type: ignore[union-attr]
            "the connection has ended",
        )
        await system.status()


async def test_a_client_that_pings_too_often_without_calls_is_disconnected(system: System) -> None:
    assert system.settings is not None
    options = [
        ("grpc.keepalive_time_ms", 200),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    address = f"127.0.0.1:{system.settings.grpc_port}"
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        await channel.channel_ready()
        await until(
            lambda: channel.get_state() != grpc.ChannelConnectivity.READY, "it is disconnected"
        )
    # Others are not.
    assert system.channel is not None
    assert system.channel.get_state() == grpc.ChannelConnectivity.READY


async def test_connections_end_at_their_age_and_no_call_fails(tmp_path: Path) -> None:
    async with running_system(tmp_path, connection_age_seconds=0.5) as system:
        channel = system.channel
        assert channel is not None
        for _ in range(2):
            await system.status()
            await until(
                lambda: channel.get_state() == grpc.ChannelConnectivity.IDLE,
                "the connection has ended",
            )
        # Also of those that come all the time.
        ends_at = time.monotonic() + 2.0
        while time.monotonic() < ends_at:
            await system.status()


async def test_a_method_that_does_not_exist_is_unimplemented(system: System) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await raw(system, "Delete")(b"")
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
