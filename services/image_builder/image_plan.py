"""Plans which image of a tier has which shards: pure functions of the pointer, and of what is there.

A tier's pointer decides what is served. Images are made to follow it, and no step on the way leaves an
offset unserved: a shard leaves an image once another image serves it, or what was built from it.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from shashin.index_images.packing import Budget, PackedImage, PackedShard, pack
from shashin.offsets.ranges import OffsetRange

MAX_NAME = 63
"""Of a Service, which has the name of its IndexServing."""

_PACKINGS = 10
"""Attempts at a packing in which everything new fits; each leaves the next one less room."""

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
    """Shards that stay in an image until every replica of another one serves them, or what has their
    offsets now."""


def plan_images(
    pointed: Sequence[PackedShard],
    before: Sequence[PackedImage],
    held: Mapping[str, Collection[int]],
    budget: Budget,
    *,
    successors: Mapping[str, Collection[str]] | None = None,
    unusable: Collection[str] = (),
) -> ImagePlan:
    """Return what the images should have.

    ``pointed`` are the shards in the tier's pointer, ``before`` what each image has according to its
    IndexServing. ``held`` says, by shard, of which images every ready replica serves it. ``successors``
    says which shards of the pointer have offsets of one that the pointer no longer names: in the same
    image they take its place at once, but an image must not lose it before another one has them.
    ``unusable`` shards cannot be put into an image now: one that has such a shard stays as it is.
    """
    successors = successors or {}
    wanted = {shard.shard_id: shard for shard in pointed}
    of_tier = wanted.keys() | successors.keys()
    frozen = [i for i in before if any(s.shard_id in of_tier & {*unusable} for s in i.shards)]
    in_frozen = {shard.shard_id for image in frozen for shard in image.shards}
    usable = [
        s for s in wanted.values() if s.shard_id not in in_frozen and s.shard_id not in unusable
    ]
    there = {image.number: image.shards for image in before}
    occupied: dict[int, tuple[PackedShard, ...]] = {}
    for _ in range(_PACKINGS):
        packed = pack(
            usable,
            [image for image in before if image not in frozen],
            budget,
            reserved={image.number for image in frozen},
            occupied=occupied,
        )
        target = {s.shard_id: image.number for image in (*packed, *frozen) for s in image.shards}
        leaving = _Leaving(target, before, held, wanted.keys(), successors)
        goals = {image.number: image.shards for image in packed}
        images = {image.number: image for image in frozen}
        postponed = False
        for number in sorted((there.keys() | goals.keys()) - images.keys()):
            goal, had = goals.get(number, ()), there.get(number, ())
            shards = _contents(number, goal, had, wanted, leaving, budget)
            postponed |= not shards.issuperset(goal)
            if shards:
                images[number] = PackedImage(number, tuple(sorted(shards)))
            if staying := shards.difference(goal):
                occupied[number] = tuple(sorted({*occupied.get(number, ()), *staying}))
        # What has no room besides what stays could wait for something that waits for it: it goes
        # somewhere else.
        if not postponed:
            break
    return ImagePlan(
        tuple(images[number] for number in sorted(images)),
        tuple(sorted(there.keys() - images.keys())),
        _relied_on(images, before, wanted, target),
        tuple(sorted(set(unusable) & wanted.keys() - in_frozen)),
        tuple(sorted(leaving.waiting)),
    )


class _Leaving:
    """Which shards have to stay in an image that they leave."""

    def __init__(
        self,
        target: Mapping[str, int],
        before: Sequence[PackedImage],
        held: Mapping[str, Collection[int]],
        wanted: Collection[str],
        successors: Mapping[str, Collection[str]],
    ) -> None:
        self._target = target
        self._had = {image.number: {s.shard_id for s in image.shards} for image in before}
        self._held = held
        self._wanted = wanted
        self._successors = successors
        self.waiting: set[str] = set()

    def stays(self, shard_id: str, number: int, contents: Collection[str]) -> bool:
        """Return whether an image that will have ``contents`` has to keep a shard besides."""
        if shard_id in self._wanted:
            target = self._target[shard_id]
            stays = target != number and not self._arrived(shard_id, [target])
        else:
            others = self._had.keys() - {number}
            stays = any(
                one not in contents and not self._arrived(one, others)
                for one in self._successors.get(shard_id, ())
            )
        if stays:
            self.waiting.add(shard_id)
        return stays

    def _arrived(self, shard_id: str, numbers: Collection[int]) -> bool:
        """Whether every replica of one of the images serves a shard, and is meant to go on."""
        # One that is about to lose the shard may still serve it, but for how long?
        return any(
            number in self._held.get(shard_id, ()) and shard_id in self._had.get(number, ())
            for number in numbers
        )


def _contents(
    number: int,
    goal: Sequence[PackedShard],
    there: Sequence[PackedShard],
    wanted: Mapping[str, PackedShard],
    leaving: _Leaving,
    budget: Budget,
) -> set[PackedShard]:
    """Return what an image has next: what is new waits as long as there is no layer left for it."""
    present = {shard.shard_id for shard in there}
    staying: set[PackedShard] = set()
    while True:
        contents = {*staying, *(shard for shard in goal if shard.shard_id in present)}
        for shard in sorted(set(goal) - contents):
            if len(contents) < budget.layers:
                contents.add(shard)
        names = {shard.shard_id for shard in contents}
        more = {
            wanted.get(shard.shard_id, shard)
            for shard in there
            if shard.shard_id not in names and leaving.stays(shard.shard_id, number, names)
        }
        if not more:
            return contents
        # With more that stays, less that is new may fit, for which something else has to stay.
        staying |= more


def _relied_on(
    images: Mapping[int, PackedImage],
    before: Sequence[PackedImage],
    wanted: Mapping[str, PackedShard],
    target: Mapping[str, int],
) -> dict[int, frozenset[int]]:
    relied: dict[int, frozenset[int]] = {}
    for image in before:
        now = images[image.number].shards if image.number in images else ()
        gone = {s.shard_id for s in image.shards} - {s.shard_id for s in now}
        if dropped := gone & wanted.keys():
            relied[image.number] = frozenset(target[shard_id] for shard_id in dropped)
    return relied


def successors_of(
    shards: Mapping[str, Sequence[OffsetRange]], pointed: Mapping[str, Sequence[OffsetRange]]
) -> dict[str, frozenset[str]]:
    """Return, for each of some shards that a pointer no longer names, which of its shards overlap it.

    Both are by id, with their ranges. A shard that no other overlaps was handed over to an older tier,
    or is retired: planning has made sure that nothing is lost without it.
    """
    partitions: defaultdict[int, list[tuple[OffsetRange, str]]] = defaultdict(list)
    for shard_id, ranges in pointed.items():
        for r in ranges:
            partitions[r.partition].append((r, shard_id))
    return {
        shard_id: frozenset(
            other for r in ranges for found, other in partitions[r.partition] if found.overlaps(r)
        )
        for shard_id, ranges in shards.items()
        if shard_id not in pointed
    }


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
