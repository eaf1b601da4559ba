"""Which calls are let in by their key, and how often."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from shashin.access.api_key import new_key
from shashin.access.keyring import Keyring, key_in
from shashin.errors import ApiKeyMissing, ApiKeyRefused, RateLimited

START = datetime(2026, 11, 29, 10, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def keyring(clock: Clock, *keys: object) -> Keyring:
    return Keyring(keys, clock=clock.monotonic, now=clock.now)  # type: ignore[arg-type]


def refused(problem: str) -> float:
    name = "shashin_api_keys_refused_total"
    return REGISTRY.get_sample_value(name, {"problem": problem}) or 0.0


def test_each_of_several_keys_lets_its_caller_in(clock: Clock) -> None:
    made = [new_key(name, created=START) for name in ("app", "app", "web")]
    ring = keyring(clock, *(stored for _, stored in made))
    for key, stored in made:
        assert ring.caller(key) is stored


def test_a_call_without_a_key_is_told_what_to_send(clock: Clock) -> None:
    before = refused("missing")
    for key in (None, ""):
        with pytest.raises(ApiKeyMissing, match="authorization: Bearer KEY"):
            keyring(clock).caller(key)
    assert refused("missing") == before + 2


def test_an_unknown_key_is_refused_by_its_id_alone(clock: Clock) -> None:
    key, _ = new_key("app", created=START)
    with pytest.raises(ApiKeyRefused, match="unknown here") as unknown:
        keyring(clock).caller(key)
    assert key.rpartition("_")[2] not in unknown.value.message
    assert key[8:18] in unknown.value.message


def test_the_right_id_with_another_secret_is_unknown(clock: Clock) -> None:
    key, stored = new_key("app", created=START)
    ring = keyring(clock, stored)
    with pytest.raises(ApiKeyRefused, match="unknown here"):
        ring.caller(key[:-1] + ("0" if key[-1] != "0" else "1"))


def test_a_key_is_refused_once_it_expires_or_is_revoked(clock: Clock) -> None:
    key, stored = new_key("app", created=START, expires=START + timedelta(seconds=10))
    ring = keyring(clock, stored)
    clock.seconds = 9.9
    assert ring.caller(key) is stored
    clock.seconds = 10.0
    with pytest.raises(ApiKeyRefused, match=r"app .* expired"):
        ring.caller(key)
    ring.replace([stored.model_copy(update={"revoked": START})])
    with pytest.raises(ApiKeyRefused, match=r"app .* revoked"):
        ring.caller(key)


def test_a_rate_lets_a_burst_through_and_then_so_many_a_second(clock: Clock) -> None:
    key, stored = new_key("limited", created=START, per_second=10, burst=3)
    ring = keyring(clock, stored)
    caller = ring.caller(key)
    for _ in range(3):
        ring.take(caller)
    with pytest.raises(RateLimited) as limited:
        ring.take(caller)
    assert limited.value.retry_after_seconds == pytest.approx(0.1)
    clock.seconds += limited.value.retry_after_seconds
    ring.take(caller)
    with pytest.raises(RateLimited):
        ring.take(caller)


@given(
    st.floats(0.5, 100),
    st.integers(1, 50),
    st.lists(st.floats(0, 0.5), min_size=1, max_size=200),
)
def test_over_any_time_no_more_calls_pass_than_rate_and_burst_allow(
    per_second: float, burst: int, pauses: list[float]
) -> None:
    clock = Clock()
    _, stored = new_key("limited", created=START, per_second=per_second, burst=burst)
    ring = keyring(clock, stored)
    passed = 0
    for pause in pauses:
        clock.seconds += pause
        with suppress(RateLimited):
            ring.take(stored)
            passed += 1
    assert passed <= burst + per_second * clock.seconds + 1e-6


def test_reading_the_file_again_gives_nobody_a_new_burst(clock: Clock) -> None:
    _, stored = new_key("limited", created=START, per_second=1, burst=2)
    other = new_key("other", created=START)[1]
    ring = keyring(clock, stored)
    ring.take(stored)
    ring.take(stored)
    ring.replace([other, stored])
    with pytest.raises(RateLimited):
        ring.take(stored)
    more = stored.model_copy(update={"burst": 5.0})
    ring.replace([more])
    ring.take(more)


def counted(metric: str, name: str) -> float | None:
    return REGISTRY.get_sample_value(f"shashin_api_key_{metric}_total", {"caller": name})


def test_calls_are_counted_by_the_name_of_their_key_while_it_is_in_the_file(clock: Clock) -> None:
    _, stored = new_key("counted", created=START, per_second=1, burst=2)
    rotated = new_key("counted", created=START)[1]
    ring = keyring(clock, stored, rotated)
    for _ in range(2):
        ring.take(stored)
    ring.take(rotated)
    with pytest.raises(RateLimited):
        ring.take(stored)
    assert (counted("calls", "counted"), counted("rate_limited", "counted")) == (3, 1)
    ring.replace([rotated])
    assert counted("calls", "counted") == 3
    ring.replace([])
    assert counted("calls", "counted") is None


def test_one_caller_does_not_use_up_the_rate_of_another(clock: Clock) -> None:
    busy, quiet = (new_key(name, created=START, per_second=1)[1] for name in ("busy", "quiet"))
    ring = keyring(clock, busy, quiet)
    ring.take(busy)
    with pytest.raises(RateLimited):
        ring.take(busy)
    ring.take(quiet)


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([], None),
        ([("user-agent", "x")], None),
        ([("authorization", "Bearer abc")], "abc"),
        ([("authorization", "bearer  abc ")], "abc"),
        ([("authorization", b"Bearer abc")], "abc"),
        ([("x-api-key", "abc")], "abc"),
        ([("x-api-key", "abc"), ("authorization", "Bearer def")], "def"),
        ([("authorization", "Basic dXNlcg=="), ("x-api-key", "abc")], "abc"),
        ([("authorization", "Basic dXNlcg==")], None),
        ([("authorization", "Bearer")], None),
    ],
)
def test_the_key_is_in_one_of_two_headers(
    headers: list[tuple[str, str | bytes]], key: str | None
) -> None:
    assert key_in(headers) == key
