"""The shards of a snapshot as they are searched: in one call for all that can be searched together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from shashin.shards.hits import Candidates, Hits, best_of_any, best_of_sealed, joined
from shashin.shards.kinds.native.library import Listings
from shashin.shards.kinds.protocol import RowMask, Stack, StackHits, Vectors
from shashin.shards.kinds.stacking import can_be_stacked, stacks_over
from shashin.shards.row_filter import RowFilter
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.shard import Shard


@dataclass(frozen=True)
class _Stacked:
    """A stack, and which shard each of its members is."""

    stack: Stack
    positions: npt.NDArray[np.int64]
    """By member number, the position of its shard."""
    shards: Mapping[int, SealedShard]
    """By member number."""

    def passing(self, row_filter: RowFilter) -> dict[int, RowMask] | None:
        if not row_filter.restricts:
            return None
        return {number: shard.passing(row_filter) for number, shard in self.shards.items()}


class SearchedShards:
    """Shards, searched together. Made from those before, it copies only what is new."""

    def __init__(self, shards: Sequence[Shard], before: SearchedShards | None = None) -> None:
        self._shards = shards
        together: dict[int, tuple[int, SealedShard]] = {}
        self._alone: list[tuple[int, Shard]] = []
        for position, shard in enumerate(shards):
            if isinstance(shard, SealedShard) and can_be_stacked(shard.stack_member.index):
                together[id(shard.stack_member)] = position, shard
            else:
                self._alone.append((position, shard))
        members = [shard.stack_member for _, shard in together.values()]
        self.stacks: list[Stack] = stacks_over(members, [] if before is None else before.stacks)
        self._stacked = []
        for stack in self.stacks:
            of_member = {n: together[id(member)] for n, member in stack.members.items()}
            positions = np.zeros(1 + max(of_member), dtype=np.int64)
            for number, (position, _) in of_member.items():
                positions[number] = position
            sealed = {number: shard for number, (_, shard) in of_member.items()}
            self._stacked.append(_Stacked(stack, positions, sealed))
        self._listings: Listings | None = None
        """Of all shards; None if some are open."""
        if all(isinstance(shard, SealedShard) for shard in shards):
            self._listings = Listings([cast("SealedShard", s).identities for s in shards])

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory beyond those of the shards' own indexes."""
        return sum(stack.memory_bytes for stack in self.stacks)

    def search(self, queries: Vectors, k: int, row_filter: RowFilter) -> Hits:
        """Return the hits of the k nearest listings over all shards, for each query (m, dimensions).

        Each listing occurs once: with the nearest photo of its newest version found.
        """
        alone = [
            (position, shard.search(queries, k, row_filter))
            for position, shard in self._alone
            if shard.rows
        ]
        masks = [stacked.passing(row_filter) for stacked in self._stacked]
        count = k
        while True:
            of_stacks = [
                stacked.stack.search(queries, count, allowed=mask)
                for stacked, mask in zip(self._stacked, masks, strict=True)
            ]
            found = []
            for i in range(len(queries)):
                parts = [
                    _candidates(stacked, of_stack, i)
                    for stacked, of_stack in zip(self._stacked, of_stacks, strict=True)
                ]
                parts += [
                    Candidates(np.full(len(n[i].rows), position), n[i].rows, n[i].scores)
                    for position, n in alone
                ]
                found.append(joined(parts))
            hits = (
                best_of_any(found, self._shards, k)
                if self._listings is None
                else best_of_sealed(found, self._listings, k)
            )
            # A listing can be in several members. Those that a stack returned beyond it may be hits.
            short = [i for i, of_query in enumerate(hits.counts) if of_query < k]
            if not any(of_stack.counts[i] == count for of_stack in of_stacks for i in short):
                return hits
            count *= 2


def _candidates(stacked: _Stacked, found: StackHits, query: int) -> Candidates:
    count = found.counts[query]
    return Candidates(
        stacked.positions[found.members[query, :count]],
        found.rows[query, :count].astype(np.int64),
        found.scores[query, :count],
    )
