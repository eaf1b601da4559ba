"""A position in all partitions of a topic, with the identity of the topic that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LogPosition:
    """The offset of each partition up to which a topic was read."""

    topic_id: str = ""
    """The broker's id of the topic, which a topic that is deleted and created again does not keep;
    empty if the broker does not tell."""
    offsets: Mapping[int, int] = field(default_factory=dict)
    """By partition; one that is missing counts as 0."""

    def offset(self, partition: int) -> int:
        """Return the offset of a partition."""
        return self.offsets.get(partition, 0)

    def may_be_of(self, topic_id: str) -> bool:
        """Whether the offsets can be those of this topic; an unknown id fits every topic."""
        return not self.topic_id or not topic_id or self.topic_id == topic_id

    def reaches(self, other: LogPosition) -> bool:
        """Whether it is at or past the other position in every partition of that one."""
        return all(self.offset(p) >= offset for p, offset in other.offsets.items())


def furthest(topic_id: str, positions: Iterable[LogPosition]) -> LogPosition:
    """Return the highest offset of each partition among positions in one topic."""
    offsets: dict[int, int] = {}
    for position in positions:
        for partition, offset in position.offsets.items():
            offsets[partition] = max(offset, offsets.get(partition, 0))
    return LogPosition(topic_id, offsets)


def lowest(topic_id: str, positions: Iterable[LogPosition]) -> LogPosition:
    """Return the lowest offset of each partition among positions in one topic."""
    positions = list(positions)
    partitions = {partition for position in positions for partition in position.offsets}
    return LogPosition(
        topic_id, {p: min(position.offset(p) for position in positions) for p in partitions}
    )
