"""What is learnt of replicas: who is asked first, and how long a call is waited for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from shashin.discovery.protocol import Endpoint
from shashin.serving.fleet import Peer
from shashin.serving.replica_choice import Standing, unresponsive_after
from shashin.serving.replica_record import ALIVE_SECONDS, ASIDE_SECONDS, ReplicaRecord


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class Replica:
    """What the record uses of a peer, without a channel."""

    endpoint: Endpoint
    removed: bool = False


@dataclass
class Group:
    """Two replicas, and what is known of them."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.record = ReplicaRecord(clock=self.clock, seed=1)
        self.one, self.other = (self.replica(name) for name in ("one", "other"))
        self.record.describe([self.one.endpoint, self.other.endpoint], [])

    @staticmethod
    def replica(name: str, group: str = "a") -> Peer:
        return cast(
            "Peer", Replica(Endpoint(name, "index-server", f"{name}:1", "hourly", group=group))
        )

    def chosen(self) -> set[str]:
        """Return who is chosen in many searches."""
        both = [self.one, self.other]
        return {self.record.choose(both).endpoint.name for _ in range(50)}

    @property
    def delay(self) -> float:
        return self.record.hedge_delay(self.one.endpoint.group_key, "Search")


def test_both_replicas_are_chosen_while_both_work() -> None:
    assert Group().chosen() == {"one", "other"}


def test_a_replica_that_failed_is_asked_again_after_a_while() -> None:
    group = Group()
    group.record.set_aside(group.one)
    assert group.chosen() == {"other"}
    group.clock.now += ASIDE_SECONDS
    assert group.chosen() == {"one", "other"}


def test_a_replica_that_answers_is_no_longer_set_aside() -> None:
    group = Group()
    group.record.set_aside(group.one)
    group.record.answered(group.one, "Search", 0.01)
    assert group.chosen() == {"one", "other"}


def test_a_new_replica_is_not_asked_before_it_has_described_itself_if_another_is_ready() -> None:
    group = Group()
    group.record.describe([group.one.endpoint], [])
    assert group.record.standing(group.other) == Standing.NEW
    assert group.chosen() == {"one"}
    group.record.describe([group.one.endpoint], [group.other.endpoint])
    assert group.chosen() == {"one"}
    group.record.describe([], [group.one.endpoint])
    assert group.chosen() == {"other"}


def test_without_a_ready_replica_any_is_asked() -> None:
    group = Group()
    group.record.describe([], [])
    assert group.chosen() == {"one", "other"}


def test_a_replica_that_loses_one_hedge_is_a_straggler_and_one_that_loses_two_hangs() -> None:
    group = Group()
    group.record.overtaken(group.one, "Search", 0.1)
    assert group.chosen() == {"one", "other"}
    group.record.answered(group.one, "Search", 0.1)
    group.record.overtaken(group.one, "Search", 0.1)
    assert group.chosen() == {"one", "other"}
    group.record.overtaken(group.one, "Search", 0.1)
    assert group.chosen() == {"other"}


def test_a_replica_that_answers_other_calls_does_not_hang() -> None:
    group = Group()
    group.record.answered(group.one, "Search", 0.02)
    assert group.record.is_alive(group.one)
    assert not group.record.hangs(group.one, "Search", 60.0)
    group.record.overtaken(group.one, "Search", 60.0)
    assert group.chosen() == {"one", "other"}
    group.clock.now += ALIVE_SECONDS
    assert not group.record.is_alive(group.one)
    assert group.record.hangs(group.one, "Search", 60.0)


def test_a_replica_far_slower_than_usual_hangs_at_once_and_is_no_measure_of_others() -> None:
    group = Group()
    for _ in range(100):
        group.record.answered(group.other, "Search", 0.02)
    assert group.delay == 0.02
    for _ in range(100):
        group.record.overtaken(group.one, "Search", unresponsive_after(0.02))
    assert group.delay == 0.02
    assert group.chosen() == {"other"}


def test_calls_that_were_overtaken_count_in_the_estimate_with_their_time_so_far() -> None:
    group = Group()
    for _ in range(90):
        group.record.answered(group.other, "Search", 0.02)
    assert group.delay == 0.02
    for _ in range(10):
        group.record.overtaken(group.one, "Search", 0.05)
    assert group.delay == 0.05


def test_methods_have_estimates_of_their_own() -> None:
    group = Group()
    for _ in range(100):
        group.record.answered(group.other, "Lookup", 0.3)
        group.record.answered(group.other, "Search", 0.02)
    assert group.delay == 0.02


def test_what_is_known_of_a_group_is_forgotten_once_it_has_left() -> None:
    group = Group()
    stays = group.replica("third", group="b")
    for peer in (group.one, stays):
        for _ in range(100):
            group.record.answered(peer, "Search", 0.02)
    group.record.set_aside(group.other)
    group.record.keep_only([stays.endpoint])
    assert group.delay == 0.1
    assert group.record.hedge_delay(stays.endpoint.group_key, "Search") == 0.02
    assert group.record.standing(group.other) == Standing.NEW


def test_the_busier_of_two_replicas_is_not_chosen() -> None:
    group = Group()
    group.record.begin(group.one)
    assert group.chosen() == {"other"}
    group.record.end(group.one)
    assert group.chosen() == {"one", "other"}
