"""Client and reflector with answers that a real API server cannot be made to give."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shashin.errors import (
    KubernetesGone,
    KubernetesUnauthenticated,
    KubernetesUnavailable,
)
from shashin.kube.client import KubeClient
from shashin.kube.reflector import Reflector, WatchTimes
from shashin.kube.resources import CONFIG_MAPS
from shashin.runtime.health import Health
from shashin.runtime.scope import LoopScope
from tests.support.fake_api_server import (
    Answer,
    FakeApiServer,
    body,
    fake_api_server,
    listing,
    status,
    watch,
)
from tests.support.loops import running
from tests.support.waiting import until

TIMES = WatchTimes(shortest_seconds=0.2, longest_backoff_seconds=0.2)


def made(name: str, version: str = "1", **data: str) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": name, "uid": name, "resourceVersion": version}
    return {"metadata": metadata, "data": data}


def event(kind: str, found: Any) -> dict[str, Any]:
    return {"type": kind, "object": found}


# --- the client -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        body(b"<html>"),
        body(b"[]"),
        body(b"{}"),
        body(b'{"metadata": {}, "items": {}}'),
        body(b'{"metadata": {}, "items": [1]}'),
        body(b'{"metadata": {}, "items": [{"metadata": {}}]}'),
    ],
)
async def test_a_list_that_is_none_is_unavailable(answer: Answer) -> None:
    async with fake_api_server() as (server, client):
        server.otherwise = answer
        with pytest.raises(KubernetesUnavailable, match="list configmaps in namespace 'shop'"):
            await client.list(CONFIG_MAPS)


async def test_a_continue_token_that_expired_is_gone() -> None:
    async with fake_api_server() as (server, client):
        server.queued += [listing(made("a"), token="a&b="), status(410)]
        with pytest.raises(KubernetesGone):
            await client.list(CONFIG_MAPS)
        assert server.requests[1].query["continue"] == "a&b="


async def test_a_server_that_is_overloaded_says_for_how_long() -> None:
    async with fake_api_server() as (server, client):
        server.otherwise = status(429, headers={"Retry-After": "7"})
        with pytest.raises(KubernetesUnavailable) as refused:
            await client.get(CONFIG_MAPS, "one")
        assert refused.value.retry_after_seconds == 7.0


async def test_credentials_are_read_once_more_when_they_are_refused() -> None:
    async with fake_api_server() as (server, client):
        server.queued += [status(401), body(json.dumps(made("one")).encode())]
        await client.get(CONFIG_MAPS, "one")
        sent = [request.headers["Authorization"] for request in server.requests]
        assert sent == ["Bearer token-1", "Bearer token-2"]
        server.otherwise = status(401)
        with pytest.raises(KubernetesUnauthenticated):
            await client.get(CONFIG_MAPS, "one")
        assert len(server.requests) == 4


async def test_what_is_sent_is_what_the_api_expects() -> None:
    async with fake_api_server() as (server, client):
        server.otherwise = body(json.dumps(made("one")).encode())
        await client.apply(CONFIG_MAPS, made("one"), manager="shashin", force=False)
        await client.merge_patch(CONFIG_MAPS, "one", {"status": {}}, subresource="status")
        await client.delete(CONFIG_MAPS, "one", uid="u", propagation="Foreground")
        applied, patched, deleted = server.requests
        assert applied.method == patched.method == "PATCH"
        assert applied.content_type == "application/apply-patch+yaml"
        assert dict(applied.query) == {"fieldManager": "shashin", "force": "false"}
        assert patched.content_type == "application/merge-patch+json"
        assert patched.path == "/api/v1/namespaces/shop/configmaps/one/status"
        options = json.loads(server.bodies[2])
        assert deleted.method == "DELETE"
        assert options["preconditions"] == {"uid": "u"}
        assert options["propagationPolicy"] == "Foreground"


@asynccontextmanager
async def watching(client: KubeClient) -> AsyncIterator[AsyncIterator[Any]]:
    async with client.watch(
        CONFIG_MAPS, "1", server_seconds=60, silence_seconds=60, total_seconds=60
    ) as events:
        yield events


async def test_events_come_whole_however_they_are_cut_into_pieces() -> None:
    line = json.dumps(event("ADDED", made("写真", a="x" * 9))).encode()
    pieces = [bytes([one]) for one in line] + [b"\n\n", line + b"\n" + line, b"\n"]
    async with fake_api_server() as (server, client):
        server.otherwise = watch(*pieces)
        async with watching(client) as events:
            seen = [one.object["metadata"]["name"] async for one in events]
    assert seen == ["写真"] * 3


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"garbage\n", KubernetesUnavailable),
        (b"[]\n", KubernetesUnavailable),
        (b'{"type": "ADDED"}\n', KubernetesUnavailable),
        (b'{"type": "BOOKMARK", "object": 1}\n', KubernetesUnavailable),
        (b'{"type": "MOVED", "object": {}}\n', KubernetesUnavailable),
        (b'{"type": "ADDED", "obj', KubernetesUnavailable),
        (b'{"type": "ERROR"}\n', KubernetesUnavailable),
        (b'{"type": "ERROR", "object": {"code": 410, "message": "old"}}\n', KubernetesGone),
    ],
)
async def test_an_event_that_is_none_ends_the_watch_with_an_error(
    line: bytes, error: type[Exception]
) -> None:
    async with fake_api_server() as (server, client):
        server.otherwise = watch(line)
        async with watching(client) as events:
            with pytest.raises(error, match="watch configmaps in namespace 'shop'"):
                await anext(events)


# --- the reflector --------------------------------------------------------------------------------


class Followed:
    """A reflector that runs, and the server that it follows."""

    def __init__(self, server: FakeApiServer, client: KubeClient) -> None:
        self.server, self.health = server, Health()
        self.reflector = Reflector(client, CONFIG_MAPS, times=TIMES)

    def names(self) -> set[str]:
        return {name for _, name in self.reflector.objects}


@asynccontextmanager
async def following(*answers: Answer, otherwise: Answer) -> AsyncIterator[Followed]:
    async with fake_api_server() as (server, client):
        server.queued += answers
        server.otherwise = otherwise
        followed = Followed(server, client)
        async with running(followed.reflector.loop(), health=followed.health):
            yield followed
        server.closing.set()


FAILURES = {
    "an old version": watch(event("ERROR", {"code": 410, "message": "too old"})),
    "an old version at once": status(410),
    "an overloaded server": status(429),
    "a broken server": status(500),
    "garbage": watch(b"garbage\n"),
    "half an event": watch(b'{"type": "ADDED", "obj'),
    "an end at once": watch(),
}


@pytest.mark.parametrize("failing", FAILURES.values(), ids=FAILURES.keys())
async def test_after_any_failure_of_a_watch_everything_is_listed_again(failing: Answer) -> None:
    forever = asyncio.Event()
    async with following(
        listing(made("a"), made("b"), version="1"),
        failing,
        listing(made("b"), made("c"), version="2"),
        otherwise=watch(event("BOOKMARK", {"metadata": {"resourceVersion": "3"}}), then=forever),
    ) as followed:
        await until(lambda: followed.names() == {"b", "c"}, "the missed delete is found")
        await until(lambda: not followed.health.problems(), "it is healthy again")
        queries = [request.query.get("resourceVersion") for request in followed.server.requests]
        assert queries == [None, "1", None, "2"]
        forever.set()


@pytest.mark.parametrize("failing", FAILURES.values(), ids=FAILURES.keys())
async def test_a_failure_keeps_the_last_known_set_and_is_on_healthz(failing: Answer) -> None:
    async with following(listing(made("a")), failing, otherwise=status(500)) as followed:
        await until(lambda: followed.reflector.problem, "the failure is noticed")
        await until(lambda: len(followed.server.requests) > 4, "it is tried again and again")
        assert followed.names() == {"a"}
        assert followed.reflector.synced
        assert any("status 500" in problem for problem in followed.health.problems())


async def test_a_watch_goes_on_from_the_last_bookmark_without_a_list() -> None:
    forever = asyncio.Event()
    async with following(
        listing(made("a"), version="1"),
        watch(
            event("MODIFIED", made("a", "4")),
            event("BOOKMARK", {"metadata": {"resourceVersion": "9"}}),
        ),
        otherwise=watch(event("ADDED", made("b", "10")), then=forever),
    ) as followed:
        await until(lambda: followed.names() == {"a", "b"}, "the next watch is read")
        queries = [request.query.get("resourceVersion") for request in followed.server.requests]
        assert queries == [None, "1", "9"]
        forever.set()


class Impatient(LoopScope):
    """A handle that notes how long it should sleep, and does not."""

    def __init__(self, health: Health) -> None:
        super().__init__(health.register("test", ready_when="the first list"), asyncio.Event())
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> bool:
        self.slept.append(seconds)
        return await super().sleep(0.0)


async def test_a_server_that_asks_for_time_is_left_alone_for_so_long() -> None:
    async with fake_api_server() as (server, client):
        server.queued += [status(429, headers={"Retry-After": "17"}), status(500)]
        server.otherwise = listing()
        reflector, loop = Reflector(client, CONFIG_MAPS, times=TIMES), Impatient(Health())
        following = asyncio.ensure_future(reflector.run(loop))
        await until(lambda: reflector.synced, "it is asked again")
        following.cancel()
        assert loop.slept[0] == 17.0
        assert loop.slept[1] < 1.0


async def test_a_watch_that_is_forbidden_leads_to_lists_further_and_further_apart() -> None:
    async def answer(request: Any) -> Any:
        forbidden, listed = status(403), listing(made("a"))
        return await (forbidden if "watch" in request.query else listed)(request)

    async with fake_api_server() as (server, client):
        server.otherwise = answer
        reflector, loop = Reflector(client, CONFIG_MAPS), Impatient(Health())
        following = asyncio.ensure_future(reflector.run(loop))
        await until(lambda: len(loop.slept) > 5, "it was tried again and again")
        following.cancel()
        # Each wait is twice the one before, jittered down to as little as half.
        assert loop.slept[0] < loop.slept[2] < loop.slept[4]
        assert reflector.problem is not None
        assert "grant the verb 'watch' on 'configmaps'" in reflector.problem
        assert {name for _, name in reflector.objects} == {"a"}
