"""Rolling a plan out: one small Protocol, and the rollout of one machine."""

from __future__ import annotations

from typing import Protocol

from shashin.objectstore.protocol import Version
from shashin.repository.pointer import Pointer
from shashin.repository.repository import ModelRepository


class Rollout(Protocol):
    """Makes a tier serve what the plan says."""

    async def roll_out(self, pointer: Pointer, *, over: Version | None) -> None:
        """Roll a pointer out over the version that the plan was made from; None: there was none.

        Raises:
            PreconditionFailed: when the pointer was moved meanwhile: plan again.
        """
        ...


class PointerRollout:
    """Moves the tier's pointer; index servers follow it by themselves."""

    def __init__(self, repository: ModelRepository) -> None:
        self._repository = repository

    async def roll_out(self, pointer: Pointer, *, over: Version | None) -> None:
        """Move the pointer."""
        await self._repository.move_pointer(pointer, over=over)
