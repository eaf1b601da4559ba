"""Puts indexes into stacks, which search them together; which kinds can be, only the kinds know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from shashin.shards.kinds.protocol import SearchableIndex, Stack, StackMember


@runtime_checkable
class Stackable(Protocol):
    """An index, written or growing, that can be searched together with others."""

    def empty_stack(self) -> Stack:
        """Return a stack without members that this index fits."""
        ...


def can_be_stacked(index: SearchableIndex) -> bool:
    """Whether an index can be searched together with others."""
    return isinstance(index, Stackable)


def stacks_over(
    members: Sequence[StackMember], opened: Sequence[SearchableIndex], before: Sequence[Stack]
) -> list[Stack]:
    """Return the stacks of these members, made from those before where they are the same.

    Each of the indexes that are open fits one of them.

    Raises:
        TypeError: when an index cannot be stacked.
    """
    stacks = list(before)
    chosen: dict[int, list[StackMember]] = {}
    every = [*((member.index, [member]) for member in members), *((index, []) for index in opened)]
    for index, own in every:
        number = next((n for n, stack in enumerate(stacks) if stack.fits(index)), len(stacks))
        if number == len(stacks):
            if not isinstance(index, Stackable):
                raise TypeError(f"{type(index).__name__} cannot be searched with others")
            stacks.append(index.empty_stack())
        chosen.setdefault(number, []).extend(own)
    return [stacks[number].over(of_stack) for number, of_stack in sorted(chosen.items())]
