"""The shards of a snapshot as they are searched: in one call for all that can be searched together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shashin.shards.hits import Candidates, best_of, joined
from shashin.shards.kinds.native.library import Listings
from shashin.shards.kinds.protocol import (
    Hits,
    Neighbours,
    OpenRows,
    RowMask,
    Stack,
    StackHits,
    Vectors,
)
from shashin.shards.kinds.stacking import can_be_stacked, stacks_over
from shashin.shards.open_shard import OpenShard
from shashin.shards.row_filter import RowFilter
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.shard import Shard


@dataclass(frozen=True)
class _Stacked:
    """A stack, and which shard each of its members is."""

    stack: Stack
    positions: npt.NDArray[np.int64]
    """By number, the position of its shard: of each member, and of the open ones after them."""
    shards: Mapping[int, SealedShard]
    """By member number."""
    growing: Sequence[OpenShard]
    """Shards that are searched with them."""

    def opened(self) -> list[OpenRows]:
        return [shard.opened() for shard in self.growing]

    def passing(
        self, row_filter: RowFilter, opened: Sequence[OpenRows]
    ) -> dict[int, RowMask] | None:
        if not row_filter.restricts:
            return None
        masks = {n: shard.passing(row_filter, shard.rows) for n, shard in self.shards.items()}
        growing = zip(self.growing, opened, strict=True)
        masks |= {
            self.stack.next_number + i: shard.passing(row_filter, one.rows)
            for i, (shard, one) in enumerate(growing)
        }
        return masks


class SearchedShards:
    """Shards, searched together. Made from those before, it copies only what is new."""

    def __init__(self, shards: Sequence[Shard], before: SearchedShards | None = None) -> None:
        sealed: dict[int, tuple[int, SealedShard]] = {}
        """By the identity of the member."""
        growing: list[tuple[int, OpenShard]] = []
        self._alone: list[tuple[int, Shard]] = []
        for position, shard in enumerate(shards):
            if not can_be_stacked(shard.index):
                self._alone.append((position, shard))
            elif isinstance(shard, SealedShard):
                sealed[id(shard.stack_member)] = position, shard
            elif isinstance(shard, OpenShard):
                growing.append((position, shard))
        self.stacks: list[Stack] = stacks_over(
            [shard.stack_member for _, shard in sealed.values()],
            [shard.index for _, shard in growing],
            [] if before is None else before.stacks,
        )
        self._stacked = []
        for stack in self.stacks:
            of_member = {n: sealed[id(member)] for n, member in stack.members.items()}
            fitting = [(at, shard) for at, shard in growing if stack.fits(shard.index)]
            positions = np.zeros(stack.next_number + len(fitting), dtype=np.int64)
            for number, (position, _) in of_member.items():
                positions[number] = position
            positions[stack.next_number :] = [position for position, _ in fitting]
            self._stacked.append(
                _Stacked(
                    stack,
                    positions,
                    {number: shard for number, (_, shard) in of_member.items()},
                    [shard for _, shard in fitting],
                )
            )
        self._open = {at: shard for at, shard in enumerate(shards) if isinstance(shard, OpenShard)}
        self._listings = Listings([shard.identities() for shard in shards])
        """Of all shards; those of open ones are taken anew by each search."""

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
        opened = [stacked.opened() for stacked in self._stacked]
        masks = [
            stacked.passing(row_filter, of_stack)
            for stacked, of_stack in zip(self._stacked, opened, strict=True)
        ]
        # After the rows that are searched: they have at least those.
        listings = self._listings.updated(
            {position: shard.identities() for position, shard in self._open.items()}
        )
        count = k
        while True:
            if len(self._stacked) == 1 and not alone:
                (stacked,) = self._stacked
                hits, rows = stacked.stack.search_listings(
                    queries,
                    count,
                    k,
                    listings=listings,
                    positions=stacked.positions,
                    allowed=masks[0],
                    opened=opened[0],
                )
                of_stacks = [rows]
            else:
                found = [
                    stacked.stack.search(queries, count, allowed=mask, opened=of_stack)
                    for stacked, mask, of_stack in zip(self._stacked, masks, opened, strict=True)
                ]
                candidates = [
                    self._candidates_of(query, found, [(at, n[query]) for at, n in alone])
                    for query in range(len(queries))
                ]
                hits = best_of(candidates, listings, k)
                of_stacks = [of_stack.counts.tolist() for of_stack in found]
            # A listing can be in several members. Those that a stack returned beyond it may be hits.
            short = [i for i, of_query in enumerate(hits.counts) if of_query < k]
            if not any(rows[i] == count for rows in of_stacks for i in short):
                return hits
            count *= 2

    def _candidates_of(
        self, query: int, found: Sequence[StackHits], alone: Sequence[tuple[int, Neighbours]]
    ) -> Candidates:
        """Return what all stacks, and the shards that are searched alone, found for one query."""
        parts = []
        for stacked, of_stack in zip(self._stacked, found, strict=True):
            hits = slice(of_stack.counts[query])
            parts.append(
                Candidates(
                    stacked.positions[of_stack.members[query, hits]],
                    of_stack.rows[query, hits].astype(np.int64),
                    of_stack.scores[query, hits],
                )
            )
        parts += [Candidates(np.full(len(n.rows), at), n.rows, n.scores) for at, n in alone]
        return joined(parts)
