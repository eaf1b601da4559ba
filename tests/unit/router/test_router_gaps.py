"""Which replicas are asked for what the answers lack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from services.router.gaps import holders_of, holders_of_more
from shashin.discovery.protocol import Endpoint
from shashin.offsets.ranges import OffsetRange, merge_ranges
from shashin.serving.fleet import Peer
from shashin.serving.replica_calls import groups_of


@dataclass(eq=False)
class Replica:
    """What is used of a peer here, without a channel."""

    endpoint: Endpoint


RANGES = st.lists(
    st.builds(
        lambda partition, begin, size: OffsetRange(partition, begin, begin + size),
        st.integers(0, 1),
        st.integers(0, 20),
        st.integers(1, 8),
    ),
    max_size=4,
).map(merge_ranges)


def offsets(ranges: list[OffsetRange]) -> set[tuple[int, int]]:
    return {(r.partition, o) for r in ranges for o in range(r.from_offset, r.to_offset)}


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[Peer], dict[Endpoint, list[OffsetRange]], set[Endpoint]]:
    """Peers of two groups, what some have described, and who was tried: one per group at least."""
    peers, described, tried = [], {}, set()
    for group, count in (("a", draw(st.integers(1, 4))), ("b", draw(st.integers(1, 2)))):
        for number in range(count):
            name = f"{group}-{number}"
            endpoint = Endpoint(name, "index-server", name, "hourly", group=group)
            peers.append(cast("Peer", Replica(endpoint)))
            if draw(st.booleans()):
                described[endpoint] = draw(RANGES)
            if number == 0 or draw(st.booleans()):
                tried.add(endpoint)
    return peers, described, tried


@given(fleets(), RANGES)
def test_each_group_is_asked_at_most_once_and_by_one_that_holds_the_most_of_the_gap(
    fleet: tuple[list[Peer], dict[Endpoint, list[OffsetRange]], set[Endpoint]],
    missing: list[OffsetRange],
) -> None:
    peers, described, tried = fleet
    groups = groups_of(peers)
    found = holders_of(missing, groups.values(), tried, described)
    assert len({one.peers[0].endpoint.group for one in found}) == len(found)
    asked = {peer.endpoint for one in found for peer in one.peers}

    def fills(endpoint: Endpoint) -> int:
        return len(offsets(missing) & offsets(described.get(endpoint, [])))

    assert asked == {p.endpoint for p in peers if p.endpoint not in tried and fills(p.endpoint)}
    for one in found:
        assert one.preferred is not None
        assert fills(one.preferred.endpoint) == max(fills(peer.endpoint) for peer in one.peers)


@given(fleets())
def test_all_that_any_untried_replica_holds_is_searched_or_asked_for(
    fleet: tuple[list[Peer], dict[Endpoint, list[OffsetRange]], set[Endpoint]],
) -> None:
    peers, described, tried = fleet
    found = holders_of_more(groups_of(peers).values(), tried, tried, described)
    asked = {peer.endpoint for one in found for peer in one.peers}
    searched = offsets([r for endpoint in tried for r in described.get(endpoint, [])])
    for peer in peers:
        beyond = offsets(described.get(peer.endpoint, [])) - searched
        assert (peer.endpoint in asked) == (bool(beyond) and peer.endpoint not in tried)


def test_what_only_a_replica_that_failed_holds_counts_as_missing() -> None:
    names = ("old", "failed", "new")
    old, failed, new = (Endpoint(name, "index-server", name, group="a") for name in names)
    peers = [cast("Peer", Replica(endpoint)) for endpoint in (old, failed, new)]
    more = [OffsetRange(0, 0, 5)]
    found = holders_of_more([peers], {old}, {old, failed}, {old: [], failed: more, new: more})
    assert [one.peers for one in found] == [[peers[2]]]
