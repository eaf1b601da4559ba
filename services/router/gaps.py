"""Which replicas may have what those that answered do not. Pure.

Replicas hold the same shards, but for a while during a rollout. What an answer lacks of the log, another
replica of a group may hold, as it has described itself last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from shashin.discovery.protocol import Endpoint
from shashin.offsets.ranges import MergedRanges, OffsetRange
from shashin.serving.fleet import Peer
from shashin.serving.replica_calls import Replicas

Described = Mapping[Endpoint, Sequence[OffsetRange]]
"""The ranges that each ready endpoint has described last."""


def holders_of(
    missing: Sequence[OffsetRange],
    groups: Iterable[Sequence[Peer]],
    tried: Collection[Endpoint],
    described: Described,
) -> list[Replicas]:
    """Return, by group, the replicas that hold some of the missing ranges and were not tried yet.

    The one that holds the most of them is preferred. A gap that nobody holds costs no call.
    """
    found = []
    for group in groups:
        held = {
            peer: _overlap(missing, described.get(peer.endpoint, ()))
            for peer in group
            if peer.endpoint not in tried
        }
        if holders := [peer for peer, offsets in held.items() if offsets]:
            found.append(Replicas(holders, preferred=max(holders, key=held.__getitem__)))
    return found


def holders_of_more(
    groups: Iterable[Sequence[Peer]],
    answered: Collection[Endpoint],
    tried: Collection[Endpoint],
    described: Described,
) -> list[Replicas]:
    """Return, by group, the untried replicas that hold ranges beyond those of the ones that answered."""
    left = [[peer for peer in group if peer.endpoint not in tried] for group in groups]
    if not any(left):
        return []
    searched = MergedRanges(r for endpoint in answered for r in described.get(endpoint, ()))
    found = []
    for group in left:
        holders = [
            peer
            for peer in group
            if not all(map(searched.contain, described.get(peer.endpoint, ())))
        ]
        if holders:
            found.append(Replicas(holders))
    return found


def _overlap(missing: Iterable[OffsetRange], held: Sequence[OffsetRange]) -> int:
    """Return how many missing offsets are held; neither side has an offset twice."""
    return sum(
        max(0, min(gap.to_offset, one.to_offset) - max(gap.from_offset, one.from_offset))
        for gap in missing
        for one in held
        if one.partition == gap.partition
    )
