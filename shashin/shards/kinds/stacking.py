"""Puts indexes into stacks, which search them together; which kinds can be, only the kinds know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from shashin.shards.kinds.protocol import SearchableIndex, Stack, StackMember


@runtime_checkable
class Stackable(Protocol):
    """An index that can be searched together with others."""

    def empty_stack(self) -> Stack:
        """Return a stack without members that this index fits."""
        ...


def can_be_stacked(index: SearchableIndex) -> bool:
    """Whether an index can be searched together with others."""
    return isinstance(index, Stackable)


def stacks_over(members: Sequence[StackMember], before: Sequence[Stack]) -> list[Stack]:
    """Return the stacks of these members, made from those before where they are the same.

    Raises:
        TypeError: when an index cannot be stacked.
    """
    of_stack: list[tuple[Stack, list[StackMember]]] = [(stack, []) for stack in before]
    for member in members:
        for stack, chosen in of_stack:
            if stack.fits(member.index):
                chosen.append(member)
                break
        else:
            if not isinstance(member.index, Stackable):
                raise TypeError(f"{type(member.index).__name__} cannot be searched with others")
            of_stack.append((member.index.empty_stack(), [member]))
    return [stack.over(chosen) for stack, chosen in of_stack if chosen]
