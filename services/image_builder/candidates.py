"""Which shards may be served: those that are, and new ones. Reads as few manifests as it can."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from services.image_builder.plan import Candidate
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import (
    AnnouncedShard,
    ModelRepository,
    StoredShard,
    UnreadableShard,
)

_Looked = StoredShard | UnreadableShard


@dataclass(frozen=True)
class Candidates:
    """The shards of one tier that may be served."""

    shards: Sequence[Candidate]
    unreadable: Sequence[UnreadableShard]
    """Those whose manifest cannot be read."""


class CandidateReader:
    """Finds the candidates of every tier, and remembers which served ones cannot be read."""

    def __init__(self, repository: ModelRepository) -> None:
        self._repository = repository
        self._unreadable: defaultdict[str, Mapping[str, UnreadableShard]] = defaultdict(dict)
        """By tier and manifest key, as the last check of the served shards found them."""

    async def read(
        self,
        model_id: str,
        tier: str,
        current: Pointer | None,
        announced: Sequence[AnnouncedShard],
        *,
        rejected: Collection[str],
        check_served: bool,
    ) -> Candidates:
        """Return the shards that may be served.

        With ``check_served``, look whether the manifests of served shards are still there and can be
        read, which takes a request for each; without, what the last check found counts.

        Raises:
            ObjectStoreError: when the store does not respond or refuses.
        """
        found: dict[str, _Looked] = {
            new.shard.manifest_key: new.shard
            for new in announced
            if new.shard is not None and _tier_of(new.shard) == tier
        }
        if current is None or not current.has_ranges:
            for of_kind in await self._repository.shards(model_id, tier):
                found |= {shard.manifest_key: shard for shard in of_kind}
            check_served = True
        served = {shard.manifest_key: shard for shard in current.shards} if current else {}
        if check_served:
            looked_up = await self._look_up(served)
            served = {key: served[key] for key in looked_up}
            found |= looked_up
            self._unreadable[tier] = {
                key: shard for key, shard in looked_up.items() if isinstance(shard, UnreadableShard)
            }
        else:
            known = self._unreadable[tier].items()
            found = {**{key: shard for key, shard in known if key in served}, **found}
        candidates = [
            _candidate(found.get(key), served.get(key), rejected) for key in {**served, **found}
        ]
        return Candidates(candidates, [s for s in found.values() if isinstance(s, UnreadableShard)])

    async def _look_up(self, keys: Collection[str]) -> dict[str, _Looked]:
        shards = await asyncio.gather(*map(self._repository.shard_at, keys))
        return {key: shard for key, shard in zip(keys, shards, strict=True) if shard is not None}


def _tier_of(shard: _Looked) -> str:
    parts = shard.manifest_key.split("/")
    return parts[2] if len(parts) > 2 else ""


def _candidate(
    found: _Looked | None, pointed: PointedShard | None, rejected: Collection[str]
) -> Candidate:
    """Return a shard by its manifest, or if it was not read or cannot be, by the pointer."""
    if isinstance(found, StoredShard):
        pointed = PointedShard.of(found.manifest)
    elif isinstance(found, UnreadableShard) and (pointed is None or not pointed.ranges):
        pointed = PointedShard(found.shard_id, found.manifest_key, found.ranges)
    assert pointed is not None
    return Candidate(
        **vars(pointed),
        readable=not isinstance(found, UnreadableShard),
        rejected=pointed.shard_id in rejected,
    )
