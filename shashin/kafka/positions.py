"""The positions of a consumer, without waiting for those that it does not have yet."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, TopicPartition


def known_positions(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """Return the offset of the next record of each assigned partition that has a position.

    The client library's own ``position`` waits until there is one, which may be for ever: a partition
    of a new group gets its position only once a poll has failed for lack of it.
    """
    subscription = consumer._subscription.subscription  # noqa: SLF001 - see above
    assignment = subscription.assignment if subscription else None
    if assignment is None:
        return {}
    states = {tp: assignment.state_value(tp) for tp in assignment.tps}
    return {tp: int(s.position) for tp, s in states.items() if s.has_valid_position}
