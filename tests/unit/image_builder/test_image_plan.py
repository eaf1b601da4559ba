"""plan_images over random pointers, crashes and delays of what is held."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from services.image_builder.image_plan import (
    MAX_NAME,
    ImagePlan,
    plan_images,
    serving_name,
    successors_of,
)
from shashin.index_images.packing import Budget, PackedImage, PackedShard, pack
from shashin.model_space import MAX_MODEL_ID
from shashin.offsets.ranges import OffsetRange
from shashin.tiers import SEALED_TIERS

ROWS = st.integers(0, 50)
BUDGETS = st.builds(Budget, st.integers(1, 6), st.integers(1, 120))


class Rollouts(RuleBasedStateMachine):
    """Builders that plan from what they read, and are killed after any write; pods that lag behind."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(1, 1)
        self.pointer: dict[str, int] = {}
        """Rows by shard."""
        self.offsets: dict[str, frozenset[int]] = {}
        """Of every shard that ever was."""
        self.images: dict[int, PackedImage] = {}
        """What IndexServings say."""
        self.pods: dict[int, list[PackedImage]] = {}
        """Of each image, what its ready replicas serve."""
        self.merges = 0

    @initialize(budget=BUDGETS)
    def begin(self, budget: Budget) -> None:
        self.budget = budget

    @rule(offset=st.integers(0, 25), rows=ROWS)
    def seal(self, offset: int, rows: int) -> None:
        shard = f"m.hourly.p{offset:02d}"
        if not any(offset in self.offsets[one] for one in self.pointer):
            self.offsets[shard] = frozenset({offset})
            self.pointer[shard] = rows

    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        for shard in data.draw(st.sets(st.sampled_from(sorted(self.pointer) or [""]), max_size=3)):
            self.pointer.pop(shard, None)

    @rule(data=st.data())
    def merge(self, data: st.DataObject) -> None:
        """The pointer names a child in place of its parents, as soon as it was built."""
        parents = data.draw(st.sets(st.sampled_from(sorted(self.pointer) or [""]), min_size=1))
        if parents <= self.pointer.keys():
            self.merges += 1
            child = f"m.hourly.c{self.merges:02d}"
            self.offsets[child] = frozenset().union(*(self.offsets[one] for one in parents))
            self.pointer[child] = sum(self.pointer.pop(one) for one in sorted(parents))

    @rule(budget=BUDGETS)
    def set_budget(self, budget: Budget) -> None:
        self.budget = budget

    @rule(data=st.data())
    def replace_a_replica(self, data: st.DataObject) -> None:
        """One pod of an image becomes ready with what the IndexServing says."""
        if self.images:
            number = data.draw(st.sampled_from(sorted(self.images)))
            replicas = self.pods.setdefault(number, [])
            if len(replicas) < 2:
                replicas.append(self.images[number])
            else:
                replicas[data.draw(st.integers(0, 1))] = self.images[number]

    @rule(data=st.data())
    def lose_a_replica(self, data: st.DataObject) -> None:
        if running := sorted(number for number, replicas in self.pods.items() if replicas):
            self.pods[data.draw(st.sampled_from(running))].pop()

    @rule(data=st.data(), damaged=st.sets(st.integers(0, 3), max_size=2))
    def plan_and_die_somewhere(self, data: st.DataObject, damaged: set[int]) -> None:
        names = sorted(self.offsets)
        unusable = {names[n] for n in damaged if n < len(names)}
        plan = self.planned(unusable)
        writes = len(plan.images) + len(plan.removed)
        self.write(plan, data.draw(st.integers(0, writes)), unusable)

    def planned(self, unusable: Collection[str] = ()) -> ImagePlan:
        gone = {s.shard_id for image in self.images.values() for s in image.shards}
        return plan_images(
            [PackedShard(*one) for one in self.pointer.items()],
            list(self.images.values()),
            self.held(),
            self.budget,
            successors={
                shard: {one for one in self.pointer if self.offsets[one] & self.offsets[shard]}
                for shard in gone - self.pointer.keys()
            },
            unusable=unusable,
        )

    def held(self) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for number, replicas in self.pods.items():
            if replicas and number in self.images:
                for shard in set[str].intersection(*map(names_of, replicas)):
                    found.setdefault(shard, set()).add(number)
        return found

    def write(self, plan: ImagePlan, count: int, unusable: Collection[str] = ()) -> None:
        """Write some images of a plan; nothing that the pointer names is lost by a write."""
        held = self.held()
        pointed = self.offsets_of(self.pointer)
        writes = [(image.number, image.shards) for image in plan.images]
        writes += [(number, ()) for number in plan.removed]
        for number, shards in writes[:count]:
            before = self.images[number].shards if number in self.images else ()
            was, now = names_of(before), names_of(shards)
            for shard in (was - now) & self.pointer.keys():
                others = held.get(shard, set()) & self.having(shard) - {number}
                assert others & plan.relied_on[number], f"{shard} is dropped, and no other holds it"
            elsewhere = {
                shard for shard, images in held.items() if images & self.having(shard) - {number}
            }
            kept = self.offsets_of(now) | self.offsets_of(elsewhere)
            assert self.offsets_of(was) & pointed <= kept, "offsets are not served for a while"
            assert not (now - was) & set(unusable)
            assert len(shards) <= max(self.budget.layers, len(before))
            if shards:
                self.images[number] = PackedImage(number, shards)
            else:
                del self.images[number]
                self.pods.pop(number, None)

    def having(self, shard: str) -> set[int]:
        """Return the images that are meant to have a shard."""
        return {n for n, image in self.images.items() if shard in names_of(image.shards)}

    def offsets_of(self, shards: Iterable[str]) -> set[int]:
        return {offset for shard in shards for offset in self.offsets[shard]}

    def teardown(self) -> None:
        """Once nothing else happens, the images become those that packing wants, and stay so."""
        for _ in range(40):
            self.pods = {number: [image, image] for number, image in self.images.items()}
            plan = self.planned()
            if {i.number: i for i in plan.images} == self.images and not plan.removed:
                break
            self.write(plan, len(plan.images) + len(plan.removed))
        else:
            raise AssertionError("it does not come to rest")
        shards = [PackedShard(*one) for one in self.pointer.items()]
        there = list(self.images.values())
        assert list(pack(shards, there, self.budget)) == sorted(there)
        assert not plan.relied_on
        assert not plan.moving


def names_of(shards: PackedImage | Iterable[PackedShard]) -> set[str]:
    return {s.shard_id for s in (shards.shards if isinstance(shards, PackedImage) else shards)}


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=150, stateful_step_count=30)


def image(number: int, *shards: str) -> PackedImage:
    return PackedImage(number, tuple(PackedShard(f"m.{name}", 10) for name in sorted(shards)))


def planned(
    pointed: str,
    before: Sequence[PackedImage],
    held: Mapping[str, set[int]] | None = None,
    unusable: Collection[str] = (),
) -> ImagePlan:
    return plan_images(
        [PackedShard(f"m.{name}", 10) for name in pointed],
        before,
        {f"m.{name}": numbers for name, numbers in (held or {}).items()},
        Budget(3, 1000),
        unusable={f"m.{name}" for name in unusable},
    )


def test_a_new_shard_changes_one_image_only() -> None:
    before = [image(0, "a", "b", "c"), image(1, "d")]
    plan = planned("abcde", before)
    assert plan.images == (before[0], image(1, "d", "e"))
    assert not plan.relied_on


def test_a_shard_that_the_pointer_no_longer_names_is_dropped_at_once() -> None:
    plan = planned("a", [image(0, "a", "b"), image(1, "c")])
    assert (plan.images, plan.removed, plan.relied_on) == ((image(0, "a"),), (1,), {})


def test_a_shard_that_moves_leaves_its_old_image_once_every_replica_of_the_new_one_has_it() -> None:
    before = [image(0, "a", "b"), image(1, "c", "d", "e")]
    first = planned("ac", before)
    assert first.images == (image(0, "a"), image(1, "a", "c")) or first.images == (
        image(0, "a", "c"),
        image(1, "c"),
    )
    again = planned("ac", first.images)
    assert again.images == first.images, "nothing is held yet"
    assert len(again.moving) == 1
    (moving,) = (name.removeprefix("m.") for name in again.moving)
    home = next(i.number for i in first.images if len(i.shards) == 2)
    done = planned("ac", first.images, {moving: {home}})
    assert (len(done.images), done.images[0].number) == (1, home)
    assert done.removed == (1 - home,)
    assert done.relied_on == {1 - home: {home}}


def test_parents_stay_until_every_replica_of_another_image_has_their_child() -> None:
    before = [image(0, "a", "b", "c"), image(1, "d")]
    successors = {"m.a": {"m.child"}}
    # The first image is full: its other shards and what is new leave no room for the child.
    pointed = [PackedShard(f"m.{name}", 10) for name in "bcd"]
    pointed += [PackedShard("m.child", 1)]
    budget = Budget(2, 1000)
    first = plan_images(pointed, before, {}, budget, successors=successors)
    assert first.images == (before[0], PackedImage(1, (*pointed[3:], *pointed[2:3])))
    assert first.moving == ("m.a",)
    held = plan_images(pointed, first.images, {"m.child": {1}}, budget, successors=successors)
    assert held.images == (image(0, "b", "c"), first.images[1])
    assert not held.moving


def test_images_that_are_full_of_parents_do_not_wait_for_each_other() -> None:
    """Each would get the child of the other one's parent."""
    before = [image(0, "a"), image(1, "b")]
    successors = {"m.a": {"m.y"}, "m.b": {"m.x"}}
    pointed = [PackedShard("m.x", 20), PackedShard("m.y", 10)]
    budget = Budget(1, 100)
    first = plan_images(pointed, before, {}, budget, successors=successors)
    names = {i.number: {s.shard_id for s in i.shards} for i in first.images}
    assert names == {0: {"m.a"}, 1: {"m.b"}, 2: {"m.x"}, 3: {"m.y"}}
    held = {"m.x": {2}, "m.y": {3}}
    rest = plan_images(pointed, first.images, held, budget, successors=successors)
    assert (rest.images, rest.removed) == (first.images[2:], (0, 1))


def test_a_child_in_the_image_of_its_parents_takes_their_place_at_once() -> None:
    plan = plan_images(
        [PackedShard("m.child", 10)],
        [image(0, "a", "b")],
        {},
        Budget(3, 100),
        successors={"m.a": {"m.child"}, "m.b": {"m.child"}},
    )
    assert plan.images == (image(0, "child"),)
    assert not plan.moving


def test_the_successors_of_a_shard_are_those_that_overlap_it() -> None:
    parents = {"a": [OffsetRange(0, 0, 5), OffsetRange(1, 0, 5)], "b": [OffsetRange(0, 5, 9)]}
    pointed = {
        "b": [OffsetRange(0, 5, 9)],
        "c": [OffsetRange(0, 0, 3)],
        "d": [OffsetRange(1, 4, 6), OffsetRange(0, 20, 30)],
        "e": [OffsetRange(2, 0, 5)],
    }
    assert successors_of(parents, pointed) == {"a": {"c", "d"}}
    assert successors_of({"f": [OffsetRange(7, 0, 1)]}, pointed) == {"f": frozenset()}


def test_an_image_with_a_shard_that_cannot_be_read_stays_as_it_is_and_others_go_on() -> None:
    before = [image(0, "a", "b")]
    plan = planned("acde", before, unusable="a")
    assert plan.images == (before[0], image(1, "c", "d", "e"))
    assert plan.left_out == ()


def test_a_new_shard_that_cannot_be_read_is_left_out() -> None:
    plan = planned("ab", [image(0, "a")], unusable="b")
    assert (plan.images, plan.left_out) == ((image(0, "a"),), ("m.b",))


MODELS = st.text("abcXYZ0189._:-", min_size=1, max_size=MAX_MODEL_ID)


@given(MODELS, st.sampled_from(SEALED_TIERS), st.integers(0, 999))
def test_the_name_of_a_serving_can_be_that_of_a_service(model: str, tier: str, number: int) -> None:
    name = serving_name(model, tier, number)
    assert len(name) <= MAX_NAME
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert name.endswith(f"-{tier}-{number}")


@given(st.lists(MODELS, min_size=2, max_size=2, unique=True), st.sampled_from(SEALED_TIERS))
def test_servings_of_different_models_have_different_names(models: list[str], tier: str) -> None:
    assert serving_name(models[0], tier, 1) != serving_name(models[1], tier, 1)


def test_the_name_of_a_serving_is_readable() -> None:
    assert serving_name("demo-v1", "hourly", 0) == "demo-v1-hourly-0"
    assert serving_name("demo.v1", "hourly", 0).startswith("m-demo-v1-")
