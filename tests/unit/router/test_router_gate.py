"""What the gate asks of a call, whichever port it comes from."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from services.router.concurrency_limit import ConcurrencyLimit
from services.router.costs import cost_of_locate, cost_of_query, cost_of_search
from services.router.front_door import FrontDoor
from services.router.gate import Gate
from services.router.queries import Query
from services.router.refusal_rate import RefusalRate
from shashin.access.api_key import new_key
from shashin.access.keyring import Keyring
from shashin.errors import ApiKeyMissing, DeadlineExceeded, InvalidQuery, Overloaded, RateLimited
from shashin.photo_box import Box
from shashin.rpc.server_call import ServerCall
from shashin.v1 import search_pb2

NOW = datetime(2026, 11, 29, tzinfo=UTC)


def limit_of(most: float) -> ConcurrencyLimit:
    return ConcurrencyLimit(at_least=most, at_most=most, target_seconds=1.0)


def test_a_gate_that_asks_for_nothing_lets_everything_in() -> None:
    gate = Gate(None, None, None)
    gate.check(lambda: pytest.fail("no key is needed"), sheds=True)
    with gate.admitted("vector", 1e9, None):
        pass


def test_more_work_than_fits_is_refused_until_some_is_done() -> None:
    gate = Gate(None, limit_of(4.0), None)
    with gate.admitted("photo", 3.0, 1.0):
        gate.check(lambda: None, sheds=True)
        with pytest.raises(Overloaded) as refused, gate.admitted("photo", 3.0, 1.0):
            pass
        assert refused.value.retry_after_seconds > 0
        with gate.admitted("vector", 1.0, 1.0):
            with pytest.raises(Overloaded):
                gate.check(lambda: None, sheds=True)
            # To see what is wrong is possible all the time.
            gate.check(lambda: None, sheds=False)
    gate.check(lambda: None, sheds=True)


@pytest.mark.parametrize(
    "error", [InvalidQuery("k"), DeadlineExceeded("late"), KeyboardInterrupt()]
)
def test_work_that_fails_is_done_as_well(error: BaseException) -> None:
    limit = limit_of(4.0)
    with pytest.raises(type(error)), Gate(None, limit, None).admitted("vector", 4.0, None):
        raise error
    assert limit.in_progress == 0


def test_a_call_whose_deadline_has_passed_does_no_work() -> None:
    limit = limit_of(4.0)
    for left in (0.0, -1.0):
        with (
            pytest.raises(DeadlineExceeded),
            Gate(None, limit, None).admitted("vector", 1.0, left),
        ):
            pytest.fail("it must not begin")
    assert limit.in_progress == 0


def test_a_call_needs_its_key_before_anything_else_and_status_is_never_shed() -> None:
    key, stored = new_key("app", created=NOW, per_second=0.001, burst=1)
    rate = RefusalRate(target_seconds=0.01)
    gate = Gate(Keyring([stored]), limit_of(1.0), rate)
    with pytest.raises(ApiKeyMissing):
        gate.check(lambda: None, sheds=False)
    gate.check(lambda: key, sheds=True)
    with pytest.raises(RateLimited):
        gate.check(lambda: key, sheds=True)
    rate.share = 0.95
    for _ in range(50):
        gate.check(lambda: key, sheds=False)


def test_the_share_of_arriving_calls_is_refused() -> None:
    rate = RefusalRate(target_seconds=0.01)
    rate.share = 0.5
    gate = Gate(None, limit_of(1.0), rate)
    refused = 0
    for _ in range(100):
        try:
            gate.check(lambda: None, sheds=True)
        except Overloaded:
            refused += 1
    assert refused == pytest.approx(50, abs=1)


@pytest.mark.parametrize(
    ("method", "refused"),
    [
        ("/shashin.v1.SearchService/Search", True),
        ("/shashin.v1.SearchService/Locate", True),
        ("/shashin.v1.SearchService/Status", True),
        ("/shashin.v1.SearchService/Later", True),
        ("/grpc.health.v1.Health/Check", False),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", False),
    ],
)
def test_only_searches_need_a_key(method: str, refused: bool) -> None:
    door = FrontDoor(None, Gate(Keyring([]), None, None), lambda: 1)  # type: ignore[arg-type]

    async def is_refused() -> bool:
        call = ServerCall((), asyncio.get_running_loop(), None)
        return door.guard(method, call) is not None

    assert asyncio.run(is_refused()) == refused


def test_calls_that_have_arrived_count_before_their_work_begins() -> None:
    gate = Gate(None, limit_of(2.0), None)
    ended = []
    for _ in range(2):
        gate.check(lambda: None, sheds=True)
        ended.append(gate.arrived())
    with pytest.raises(Overloaded):
        gate.check(lambda: None, sheds=True)
    # Those of them whose work has begun do not count twice.
    with gate.admitted("vector", 1.0, 1.0), gate.admitted("vector", 1.0, 1.0):
        pass
    ended[0]()
    gate.check(lambda: None, sheds=True)


def cost(*, photo_vectors: int = 1, **fields: Any) -> float:
    return cost_of_search(search_pb2.SearchRequest(**fields), photo_vectors)


def test_what_is_more_work_costs_more() -> None:
    vector = cost(vector=b"x" * 512)
    assert vector == 1.0
    assert vector < cost(listing_id="a") < cost(photo=b"x") < cost(photo=bytes(1 << 20))
    assert cost(vector=b"x", k=500) > vector
    part = search_pb2.QueryPart(photo=bytes(1000))
    assert cost(parts=[part]) < cost(parts=[part, part])
    assert cost(parts=[search_pb2.QueryPart(vector=b"x")]) < cost(parts=[part])
    few, many = (cost_of_locate(search_pb2.LocateRequest(listing_ids=["a"] * n)) for n in (1, 1000))
    assert 1.0 <= few < many


def test_a_photo_costs_as_many_vectors_as_it_is_searched_by() -> None:
    photo = bytes(1 << 18)
    embedded_once = cost(photo=photo) - 1.0
    assert cost(photo=photo, photo_vectors=3) - 1.0 == 3 * embedded_once, "but it is sent once"
    crop = search_pb2.CropBox(left=0.1, top=0.1, right=0.9, bottom=0.9)
    part = search_pb2.QueryPart(photo=photo)
    for never_zoomed in ({"photo": photo, "crop": crop}, {"parts": [part]}, {"vector": b"x"}):
        assert cost(**never_zoomed, photo_vectors=3) == cost(**never_zoomed)


def test_a_query_costs_the_same_whichever_way_it_comes() -> None:
    box = search_pb2.CropBox(left=0.1, top=0.1, right=0.9, bottom=0.9)
    for crop, message in ((None, None), (Box(0.1, 0.1, 0.9, 0.9), box)):
        query = Query(photo=b"x" * 1000, crop=crop, k=500)
        request = search_pb2.SearchRequest(photo=b"x" * 1000, crop=message, k=500)
        assert cost_of_query(query, 3) == cost_of_search(request, 3)
