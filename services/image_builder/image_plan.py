"""Plans which image of a tier has which shards: pure functions of the pointer, and of what is there.

A tier's pointer decides what is served. Images are made to follow it, and no step on the way leaves a
shard without an image: one that moves to another image leaves its old one once the new one serves it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from shashin.index_images.packing import Budget, PackedImage, PackedShard, pack

MAX_NAME = 63
"""Of a Service, which has the name of its IndexServing."""

_NAME_OF_MODEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True)
class ImagePlan:
    """What the images of a tier should have next."""

    images: tuple[PackedImage, ...]
    """Sorted by number."""
    removed: tuple[int, ...] = ()
    """Images that have nothing to serve any more."""
    relied_on: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """By image that drops shards or is removed: the images that serve these instead."""
    left_out: tuple[str, ...] = ()
    """Shards in the pointer that no image can have, since they cannot be read."""
    moving: tuple[str, ...] = ()
    """Shards that stay in their old image until every replica of their new one serves them."""


def plan_images(
    pointed: Sequence[PackedShard],
    before: Sequence[PackedImage],
    held: Mapping[str, Collection[int]],
    budget: Budget,
    *,
    unusable: Collection[str] = (),
) -> ImagePlan:
    """Return what the images should have.

    ``pointed`` are the shards in the tier's pointer, ``before`` what each image has according to its
    IndexServing. ``held`` says, by shard, of which images every ready replica serves it. ``unusable``
    shards cannot be put into an image now: one that has such a shard stays as it is.
    """
    wanted = {shard.shard_id: shard for shard in pointed}
    frozen = [i for i in before if any(s.shard_id in unusable for s in _wanted(i, wanted))]
    in_frozen = {shard.shard_id for image in frozen for shard in image.shards}
    packed = pack(
        [s for s in wanted.values() if s.shard_id not in in_frozen and s.shard_id not in unusable],
        [image for image in before if image not in frozen],
        budget,
        reserved={image.number for image in frozen},
    )
    goals = {image.number: image.shards for image in packed}
    target = {s.shard_id: image.number for image in (*packed, *frozen) for s in image.shards}
    had = {image.number: {s.shard_id for s in image.shards} for image in before}
    moves = _Moves(target, had, held)
    images = {image.number: image for image in frozen}
    for number in sorted((had.keys() | goals.keys()) - images.keys()):
        there = [s for s in wanted.values() if s.shard_id in had.get(number, ())]
        shards = _contents(
            goals.get(number, ()), there, [s for s in there if moves.stays(s, number)], budget
        )
        if shards:
            images[number] = PackedImage(number, tuple(sorted(shards)))
    return ImagePlan(
        tuple(images[number] for number in sorted(images)),
        tuple(sorted(had.keys() - images.keys())),
        _relied_on(images, before, wanted, target),
        tuple(sorted(set(unusable) & wanted.keys() - in_frozen)),
        tuple(sorted(moves.waiting)),
    )


def _wanted(image: PackedImage, wanted: Mapping[str, PackedShard]) -> list[PackedShard]:
    return [shard for shard in image.shards if shard.shard_id in wanted]


class _Moves:
    """Which shards wait in their old image."""

    def __init__(
        self,
        target: Mapping[str, int],
        had: Mapping[int, Collection[str]],
        held: Mapping[str, Collection[int]],
    ) -> None:
        self._target = target
        self._had = had
        self._held = held
        self.waiting: set[str] = set()

    def stays(self, shard: PackedShard, number: int) -> bool:
        """Return whether an image still has to keep a shard that belongs to another one."""
        target = self._target[shard.shard_id]
        if target == number:
            return False
        # An image that is about to lose the shard again may still serve it, but for how long?
        arrived = shard.shard_id in self._had.get(target, ()) and target in self._held.get(
            shard.shard_id, ()
        )
        if not arrived:
            self.waiting.add(shard.shard_id)
        return not arrived


def _contents(
    goal: Sequence[PackedShard],
    there: Sequence[PackedShard],
    staying: Sequence[PackedShard],
    budget: Budget,
) -> set[PackedShard]:
    """Return what an image has next: what is new waits as long as there is no layer left for it."""
    shards = {*staying, *(shard for shard in goal if shard in there)}
    for shard in sorted(set(goal) - shards):
        if len(shards) < budget.layers:
            shards.add(shard)
    return shards


def _relied_on(
    images: Mapping[int, PackedImage],
    before: Sequence[PackedImage],
    wanted: Mapping[str, PackedShard],
    target: Mapping[str, int],
) -> dict[int, frozenset[int]]:
    relied: dict[int, frozenset[int]] = {}
    for image in before:
        now = images[image.number].shards if image.number in images else ()
        kept = {shard.shard_id for shard in now}
        dropped = [s.shard_id for s in _wanted(image, wanted) if s.shard_id not in kept]
        if dropped:
            relied[image.number] = frozenset(target[shard_id] for shard_id in dropped)
    return relied


def serving_name(model_id: str, tier: str, number: int) -> str:
    """Return the name of an image's IndexServing: ``<model>-<tier>-<number>`` if it can be a name.

    Of a model whose id cannot be part of one, or that is too long, a hash takes its place.
    """
    of_image = f"-{tier}-{number}"
    if len(model_id) + len(of_image) <= MAX_NAME and _NAME_OF_MODEL.fullmatch(model_id):
        return f"{model_id}{of_image}"
    readable = re.sub(r"[^a-z0-9]+", "-", model_id.lower()).strip("-")
    hashed = hashlib.sha256(model_id.encode()).hexdigest()[:10]
    # Begins with a letter, as the name of a Service has to.
    room = MAX_NAME - len(of_image) - len(hashed) - 3
    return f"m-{readable[:room].strip('-')}-{hashed}{of_image}".replace("m--", "m-")
