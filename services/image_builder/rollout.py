"""Rollout of a plan: the Protocol, and the implementation that moves the pointer."""

from __future__ import annotations

from typing import Protocol

from shashin.objectstore.protocol import Version
from shashin.repository.pointer import Pointer
from shashin.repository.repository import ModelRepository


class Rollout(Protocol):
    """Makes a tier serve a plan."""

    async def roll_out(self, pointer: Pointer, *, over: Version | None) -> None:
        """Replace the pointer version that the plan was based on; None: there was no pointer.

        Raises:
            PreconditionFailed: when the pointer has changed since; plan again.
        """
        ...


class PointerRollout:
    """Moves the tier's pointer, which index servers follow."""

    def __init__(self, repository: ModelRepository) -> None:
        self._repository = repository

    async def roll_out(self, pointer: Pointer, *, over: Version | None) -> None:
        """Move the pointer, and keep a copy in its history."""
        await self._repository.move_pointer(pointer, over=over)
        await self._repository.keep_in_history(pointer)
