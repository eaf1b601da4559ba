"""API keys at the router's port: who is let in, how often, and that no key shows up anywhere."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status.rpc_status import from_call
from prometheus_client import REGISTRY, generate_latest

from shashin.access.api_key import StoredKey, new_key
from shashin.access.key_file import KeyFile
from shashin.errors import SettingsError
from shashin.v1 import search_pb2
from tests.support.logs import logged_as_json
from tests.support.running_router import Listing, System, running_system, shard_of, vector_of
from tests.support.waiting import until


@pytest.fixture
def accepted(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def added(file: KeyFile, name: str, **limits: float) -> tuple[str, StoredKey]:
    key, stored = new_key(name, created=datetime.now(UTC), **limits)  # type: ignore[arg-type]
    file.add(stored)
    return key, stored


@asynccontextmanager
async def guarded(folder: Path, accepted: KeyFile) -> AsyncIterator[System]:
    async with running_system(folder, accepted_keys_file=accepted.path) as system:
        yield system


async def status(
    system: System, *metadata: tuple[str, str]
) -> search_pb2.StatusResponse | grpc.StatusCode:
    try:
        return await system.stub.Status(search_pb2.StatusRequest(), metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return error.code()


async def locate(system: System, key: str) -> grpc.aio.AioRpcError | None:
    request = search_pb2.LocateRequest(listing_ids=["a"])
    try:
        await system.stub.Locate(request, metadata=(("x-api-key", key),))
    except grpc.aio.AioRpcError as error:
        return error
    return None


async def test_each_of_several_keys_is_let_in_by_either_header(
    tmp_path: Path, accepted: KeyFile
) -> None:
    keys = [added(accepted, name)[0] for name in ("app", "app", "web")]
    async with guarded(tmp_path, accepted) as system:
        for key in keys:
            for header in (("authorization", f"Bearer {key}"), ("x-api-key", key)):
                assert isinstance(await status(system, header), search_pb2.StatusResponse)


async def test_a_call_without_a_good_key_is_unauthenticated(
    tmp_path: Path, accepted: KeyFile
) -> None:
    key, stored = added(accepted, "app")
    accepted.revoke(stored.id, datetime.now(UTC))
    unknown, _ = new_key("other", created=datetime.now(UTC))
    async with guarded(tmp_path, accepted) as system:
        for metadata in (
            (),
            (("x-api-key", key),),
            (("x-api-key", unknown),),
            (("x-api-key", "x"),),
        ):
            assert await status(system, *metadata) == grpc.StatusCode.UNAUTHENTICATED


async def test_health_and_reflection_need_no_key(tmp_path: Path, accepted: KeyFile) -> None:
    added(accepted, "app")
    async with guarded(tmp_path, accepted) as system:
        assert system.channel is not None
        health = health_pb2_grpc.HealthStub(system.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status in {answer.SERVING, answer.NOT_SERVING}


async def test_keys_are_added_and_revoked_while_the_router_runs(
    tmp_path: Path, accepted: KeyFile
) -> None:
    first, stored = added(accepted, "app")
    async with guarded(tmp_path, accepted) as system:
        second, _ = added(accepted, "app")

        async def both() -> bool:
            found = [await status(system, ("x-api-key", key)) for key in (first, second)]
            return all(isinstance(one, search_pb2.StatusResponse) for one in found)

        await until(both, "both keys are accepted")
        accepted.revoke(stored.id, datetime.now(UTC))

        async def refused() -> bool:
            return await status(system, ("x-api-key", first)) == grpc.StatusCode.UNAUTHENTICATED

        await until(refused, "the revoked key is refused")
        assert isinstance(await status(system, ("x-api-key", second)), search_pb2.StatusResponse)


async def test_a_file_that_is_broken_meanwhile_changes_nothing_and_is_named(
    tmp_path: Path, accepted: KeyFile
) -> None:
    key, _ = added(accepted, "app")
    good = accepted.path.read_bytes()
    async with guarded(tmp_path, accepted) as system:
        accepted.path.write_text("{")
        await until(
            lambda: any("API keys" in problem for problem in system.health.problems()),
            "it is on /healthz",
        )
        assert isinstance(await status(system, ("x-api-key", key)), search_pb2.StatusResponse)
        accepted.path.write_bytes(good)
        await until(
            lambda: not any("API keys" in problem for problem in system.health.problems()),
            "it is well again",
        )


async def test_the_router_does_not_start_with_a_wrong_file(
    tmp_path: Path, accepted: KeyFile
) -> None:
    with pytest.raises(SettingsError, match=r"SHASHIN_ACCEPTED_KEYS_FILE: .* no such file"):
        async with guarded(tmp_path, accepted):
            pass


async def test_a_key_that_is_used_too_often_is_told_when_to_retry(
    tmp_path: Path, accepted: KeyFile
) -> None:
    key, _ = added(accepted, "limited", per_second=0.001, burst=2)
    async with guarded(tmp_path, accepted) as system:
        await system.index("indexer", "live", shard_of([Listing("a")]))
        await until(lambda: not system.health.readiness_problems(), "it is ready")
        found = [await locate(system, key) for _ in range(3)]
        assert found[:2] == [None, None]
        error = found[2]
        assert error is not None
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        retry = error_details_pb2.RetryInfo()
        details = from_call(error).details
        assert any(detail.Unpack(retry) for detail in details)
        assert 0 < retry.retry_delay.ToSeconds() <= 1000
        # Status is not counted: it says what is wrong.
        assert isinstance(await status(system, ("x-api-key", key)), search_pb2.StatusResponse)


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything that is logged at debug."""
    with logged_as_json("router", level="debug") as written:
        yield written


async def test_no_key_is_in_logs_metrics_or_messages(
    tmp_path: Path, accepted: KeyFile, logged: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    good, stored = added(accepted, "app", per_second=0.001, burst=1)
    revoked, old = added(accepted, "old")
    accepted.revoke(old.id, datetime.now(UTC))
    unknown, _ = new_key("other", created=datetime.now(UTC))
    odd = "shashin_0123456789_ODDSECRET"
    messages = []
    async with guarded(tmp_path, accepted) as system:
        await system.index("indexer", "live", shard_of([Listing("a")]))
        await until(lambda: not system.health.readiness_problems(), "it is ready")
        logging.getLogger("services.router").warning("a caller sent %s", good)
        for key in (good, good, revoked, unknown, odd):
            for header in (("x-api-key", key), ("authorization", f"Bearer {key}")):
                try:
                    await system.stub.Search(
                        search_pb2.SearchRequest(vector=vector_of("a").tobytes(), k=1),
                        metadata=(header,),
                    )
                except grpc.aio.AioRpcError as error:
                    messages.append(f"{error.details()} {error.trailing_metadata()}")
        page = generate_latest(REGISTRY).decode()
    captured = capfd.readouterr()
    everything = "\n".join([logged.getvalue(), page, *messages, captured.out, captured.err])
    assert "a caller sent shashin_" in logged.getvalue()
    assert stored.id in "".join(messages) or old.id in "".join(messages)
    for key in (good, revoked, unknown, odd):
        assert key.rpartition("_")[2] not in everything
    assert stored.sha256 not in everything
