"""Which shards of a tier go into which image. Pure.

A shard stays in the image that has it: a new shard changes the one image that it goes to, so that only
that image's pods are replaced, and the others' layers stay in the nodes' caches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from shashin.errors import UserError


@dataclass(frozen=True, order=True)
class PackedShard:
    """A shard with what it takes."""

    shard_id: str
    rows: int


@dataclass(frozen=True, order=True)
class PackedImage:
    """The shards of one image."""

    number: int
    """Identifies the image within its tier from one plan to the next; the lowest free one is used."""
    shards: tuple[PackedShard, ...]
    """Sorted, never empty."""

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)


@dataclass(frozen=True)
class Budget:
    """What one image may have; a single shard may exceed the rows, and is then alone."""

    layers: int
    """Shards: the layers that an image may have, less those of its base."""
    rows: int

    def __post_init__(self) -> None:
        if self.layers < 1 or self.rows < 1:
            raise UserError(
                f"an image may have {self.layers} shards with {self.rows} rows: expected at least one "
                "of each; use a base image with fewer layers, or raise the limit"
            )

    def has_room(self, shards: Sequence[PackedShard], another: PackedShard) -> bool:
        """Return whether an image with these shards can have another one."""
        rows = sum(shard.rows for shard in shards)
        return not shards or (len(shards) < self.layers and rows + another.rows <= self.rows)


def pack(
    shards: Iterable[PackedShard],
    before: Sequence[PackedImage],
    budget: Budget,
    *,
    reserved: Collection[int] = (),
    occupied: Mapping[int, Sequence[PackedShard]] | None = None,
) -> tuple[PackedImage, ...]:
    """Return the images for a tier's shards, sorted by number.

    1. A shard stays in the image that had it ``before``, as long as that image is within its budget.
    2. An image that lost shards is dissolved if the others have room for all that it has left.
    3. What is in no image goes to the first one with room, larger shards first, else to a new one.

    So no shard moves when others are added, and there is never an image more than first-fit needs
    for what is new. The same arguments give the same images, in whatever order they are. A new image
    has none of the ``reserved`` numbers, and none of an image whose shards are just moving to others.
    ``occupied`` are shards that an image has for a while besides: they take room from what is new.

    While a shard moves, two images have it. Then an image that has nothing of its own is the one that
    it leaves, as it was when it was dissolved.
    """
    occupied = occupied or {}
    wanted = {shard.shard_id: shard for shard in shards}
    images = {image.number: _kept(image, wanted, budget) for image in sorted(before)}
    reserved = {number for number, kept in images.items() if kept}.union(reserved, occupied)
    placed = {shard.shard_id for kept in images.values() for shard in kept}
    if sum(map(len, images.values())) != len(placed):
        images = _without_repeats(images)
    lost = {
        image.number
        for image in before
        if {shard.shard_id for shard in image.shards}
        - {shard.shard_id for shard in images[image.number]}
    }
    for number in sorted(lost, key=lambda n: (sum(s.rows for s in images[n]), n)):
        _dissolve(number, images, budget, occupied)
    for shard in _largest_first(s for s in wanted.values() if s.shard_id not in placed):
        _place(shard, images, budget, reserved, occupied)
    return tuple(PackedImage(n, tuple(sorted(held))) for n, held in sorted(images.items()) if held)


def _kept(image: PackedImage, wanted: dict[str, PackedShard], budget: Budget) -> list[PackedShard]:
    """Return the shards that stay in an image: all that are wanted, as far as they fit."""
    kept: list[PackedShard] = []
    for shard in image.shards:
        now = wanted.get(shard.shard_id)
        if now is not None and budget.has_room(kept, now):
            kept.append(now)
    return kept


def _without_repeats(images: dict[int, list[PackedShard]]) -> dict[int, list[PackedShard]]:
    """Keep each shard in the first image that has it, of those that have something of their own."""
    spare: set[int] = set()
    for number, held in images.items():
        others = [images[n] for n in images if n != number and n not in spare]
        if {shard.shard_id for shard in held} <= {s.shard_id for other in others for s in other}:
            spare.add(number)
    seen: set[str] = set()
    kept: dict[int, list[PackedShard]] = {}
    for number, held in images.items():
        own = [] if number in spare else [shard for shard in held if shard.shard_id not in seen]
        kept[number] = own
        seen |= {shard.shard_id for shard in own}
    return kept


def _dissolve(
    number: int,
    images: dict[int, list[PackedShard]],
    budget: Budget,
    occupied: Mapping[int, Sequence[PackedShard]],
) -> None:
    """Move all shards of an image to others, or none."""
    others = {n: list(held) for n, held in images.items() if n != number and held}
    for shard in _largest_first(images[number]):
        target = _first_with_room(shard, others, budget, occupied)
        if target is None:
            return
        others[target].append(shard)
    images |= {**others, number: []}


def _place(
    shard: PackedShard,
    images: dict[int, list[PackedShard]],
    budget: Budget,
    reserved: Collection[int],
    occupied: Mapping[int, Sequence[PackedShard]],
) -> None:
    used = {number: held for number, held in images.items() if held}
    target = _first_with_room(shard, used, budget, occupied)
    if target is None:
        target = next(n for n in count() if n not in used and n not in reserved)
        images[target] = []
    images[target].append(shard)


def _first_with_room(
    shard: PackedShard,
    images: dict[int, list[PackedShard]],
    budget: Budget,
    occupied: Mapping[int, Sequence[PackedShard]],
) -> int | None:
    return next(
        (n for n in sorted(images) if budget.has_room([*images[n], *occupied.get(n, ())], shard)),
        None,
    )


def _largest_first(shards: Iterable[PackedShard]) -> list[PackedShard]:
    return sorted(shards, key=lambda shard: (-shard.rows, shard.shard_id))
