"""Following ``listings.hidden`` while the broker does not respond; the rest is tested with a real one."""

from __future__ import annotations

from contextlib import suppress

from shashin.errors import KafkaUnavailable
from shashin.runtime.health import Health
from shashin.serving.hidden_follower import HiddenFollower
from shashin.serving.hidden_listings import RecentlyHidden
from shashin.serving.served_shards import ServedShards
from tests.support.hung_endpoints import silent_sockets
from tests.support.loops import running


async def test_a_broker_that_hangs_at_the_start_is_named_and_no_stall() -> None:
    now = 0.0
    health = Health(clock=lambda: now)
    async with silent_sockets(1) as (broker,):
        follower = HiddenFollower(
            ServedShards(),
            RecentlyHidden(),
            bootstrap=broker.address,
            client_id="test",
            superseded_after_seconds=0.0,
        )
        with suppress(KafkaUnavailable):  # what it waited for when it was stopped
            async with running(follower.loop(), health=health):
                await broker.connected.wait()
                now += 3600
                stalls, problems = health.liveness_problems(), health.problems()
                broker.hang_up()
        assert stalls == []
        assert broker.address in str(problems)
