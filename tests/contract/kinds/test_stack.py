"""Indexes searched together: members that join, leave, hide rows and are filtered."""

from __future__ import annotations

import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bench.search.resident import mapped
from shashin.shards.kinds import stack as stack_module
from shashin.shards.kinds.ivf_sq4 import CODES_FILE, KIND
from shashin.shards.kinds.protocol import RowMask, StackMember, Vectors
from shashin.shards.kinds.quantizer import Quantizer, train, unit
from shashin.shards.kinds.stack import IvfSq4Stack, grouped
from tests.support.counted_flags import CountedFlags

DIMENSIONS, LISTS = 32, 16
QUERIES = 8


def clustered(count: int, rng: np.random.Generator) -> Vectors:
    centres = np.random.default_rng(0).standard_normal((40, DIMENSIONS))
    near = centres[rng.integers(0, 40, count)] + 0.6 * rng.standard_normal((count, DIMENSIONS))
    return unit(near.astype(np.float32)).astype(np.float16).astype(np.float32)


QUANTIZER = train(clustered(1_000, np.random.default_rng(1)), LISTS)


def member(count: int, seed: int, quantizer: Quantizer = QUANTIZER) -> StackMember:
    """Return an index of so many rows, two of each group; the mapping outlives its files."""
    builder = KIND.with_quantizer(quantizer).builder(DIMENSIONS)
    builder.add(clustered(count, np.random.default_rng(seed)))
    with tempfile.TemporaryDirectory() as folder:
        builder.write(Path(folder))
        index = KIND.open(builder.spec, Path(folder))
    group = (np.arange(count) // 2).astype(np.uint32)
    flags = np.zeros(count, np.uint8)
    return StackMember(index, flags, group, (count + 1) // 2, CountedFlags(flags))


class Recall:
    """Of all searches of a test."""

    def __init__(self) -> None:
        self.right = self.expected = 0

    def compare(
        self,
        stack: IvfSq4Stack,
        members: list[StackMember],
        k: int,
        share: float | None,
        rng: np.random.Generator,
    ) -> None:
        """Search, and compare with brute force: only recall may be less than exact."""
        queries = unit(clustered(QUERIES, rng) + 0.3 * clustered(QUERIES, rng))
        numbers = {id(one): number for number, one in stack.members.items()}
        assert sorted(numbers) == sorted(map(id, members))
        allowed = None
        if share is not None:
            allowed = {}
            for number, one in stack.members.items():
                flags = rng.random(len(one.flags)) < share
                allowed[number] = RowMask(flags, int(np.count_nonzero(flags)))
        found = stack.search(queries, k, allowed=allowed)
        for at, query in enumerate(queries):
            best: dict[tuple[int, int], float] = {}
            for one in members:
                number = numbers[id(one)]
                may = one.flags == 0
                if allowed is not None:
                    may &= allowed[number].flags
                scores = one.index.vectors(np.arange(len(may))) @ query
                for row in np.flatnonzero(may).tolist():
                    key = (number, int(one.group[row]))
                    best[key] = max(best.get(key, -2.0), float(scores[row]))
            nearest = sorted(best, key=lambda key: -best[key])[:k]
            count = int(found.counts[at])
            assert count == len(nearest), "k hits whenever there are k"
            hits = []
            for number, row, score in zip(
                found.members[at, :count].tolist(),
                found.rows[at, :count].tolist(),
                found.scores[at, :count].tolist(),
                strict=True,
            ):
                one = stack.members[number]
                assert one.flags[row] == 0, "no flagged row"
                assert allowed is None or allowed[number].flags[row]
                (vector,) = one.index.vectors(np.array([row]))
                assert score == pytest.approx(float(vector @ query), abs=1e-5)
                hits.append((number, int(one.group[row])))
            assert len(set(hits)) == count, "each group once"
            assert (np.diff(found.scores[at, :count]) <= 0).all(), "nearest first"
            self.right += len(set(hits) & set(nearest))
            self.expected += count


@pytest.fixture(autouse=True)
def _lists_also_of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "_EXACT_ROWS", 20)


RECALL = Recall()


class Members(RuleBasedStateMachine):
    """Any sequence of changes leaves a stack that is like a new one."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)
        self.members: list[StackMember] = []
        self.stack = IvfSq4Stack(QUANTIZER)

    @rule(sizes=st.lists(st.sampled_from([0, 1, 7, 60, 400, 1_500]), min_size=1, max_size=4))
    def join(self, sizes: list[int]) -> None:
        seed = int(self.rng.integers(1 << 30))
        self.members += [member(size, seed + n) for n, size in enumerate(sizes)]
        self.stack = self.stack.over(self.members)

    @rule(keep=st.lists(st.booleans(), max_size=20))
    def leave(self, keep: list[bool]) -> None:
        kept = [*keep, *[True] * len(self.members)]
        self.members = [one for one, stays in zip(self.members, kept, strict=False) if stays]
        self.stack = self.stack.over(self.members)

    @rule(share=st.sampled_from([0.02, 0.3, 1.0]))
    def hide(self, share: float) -> None:
        if self.members:
            one = self.members[int(self.rng.integers(len(self.members)))]
            one.flags[self.rng.random(len(one.flags)) < share] = 1

    @rule(k=st.sampled_from([1, 10, 60]), share=st.sampled_from([None, 0.7, 0.1, 0.0]))
    def search(self, k: int, share: float | None) -> None:
        RECALL.compare(self.stack, self.members, k, share, self.rng)

    @invariant()
    def there_are_few_runs(self) -> None:
        large = 64 * LISTS
        assert len([r for r in self.stack._runs if r.members is not None or len(r) < large]) <= 4


def test_any_sequence_of_changes_finds_what_brute_force_finds() -> None:
    Members.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
    RECALL.right = RECALL.expected = 0
    Members.TestCase().runTest()
    assert RECALL.right >= 0.97 * RECALL.expected


def test_runs_that_stay_are_shared_and_a_member_keeps_its_number() -> None:
    first, second, third = member(500, 1), member(500, 2), member(9, 3)
    before = IvfSq4Stack(QUANTIZER).over([first, second])
    after = before.over([second, third, first])
    assert before._runs[0] in after._runs
    assert {n: id(m) for n, m in before.members.items()}.items() <= {
        n: id(m) for n, m in after.members.items()
    }.items()


def test_a_stack_of_the_same_members_is_the_same() -> None:
    first, second = member(500, 1), member(500, 2)
    stack = IvfSq4Stack(QUANTIZER).over([first, second])
    assert stack.over([second, first]) is stack
    assert stack.over([first]) is not stack


def test_a_row_that_is_flagged_is_not_found_from_then_on() -> None:
    one = member(1_000, 1)
    stack = IvfSq4Stack(QUANTIZER).over([one, member(50, 2)])
    (query,) = one.index.vectors(np.array([7]))
    assert stack.search(query[None], 1, allowed=None).rows[0, 0] == 7
    one.flags[7] = 1
    assert stack.search(query[None], 1, allowed=None).rows[0, 0] != 7


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
@pytest.mark.parametrize("hidden", [False, True])
def test_rows_that_may_be_found_are_found_also_if_all_of_them_are_far_away(
    share: float, hidden: bool
) -> None:
    one = member(8_000, 1)
    stored = one.index.vectors(np.arange(8_000))
    stack = IvfSq4Stack(QUANTIZER).over([one, member(3_000, 2)])
    ((number,),) = stack.search(stored[:1], 1, allowed=None).members
    right = 0
    for query in stored[::400]:
        scores = stored @ query
        far = scores <= np.quantile(scores, share)
        none = np.zeros(3_000, np.bool_)
        masks = {n: far if n == number else none for n in stack.members}
        allowed = {n: RowMask(mask, int(np.count_nonzero(mask))) for n, mask in masks.items()}
        if hidden:
            for n, mask in masks.items():
                stack.members[n].flags[:] = ~mask
        found = stack.search(query[None], 10, allowed=None if hidden else allowed)
        assert found.counts[0] == 10
        candidates = np.where(far, scores, -2)
        best: dict[int, float] = {}
        for row in np.argsort(-candidates)[:40].tolist():
            best.setdefault(row // 2, row)
        expected = set(list(best)[:10])
        right += len(expected & {int(row) // 2 for row in found.rows[0]})
    assert right >= 0.97 * 10 * 20


def test_what_has_left_is_not_found_by_a_new_stack_and_still_by_the_old_one() -> None:
    leaving, staying = member(300, 1), member(900, 2)
    before = IvfSq4Stack(QUANTIZER).over([leaving, staying])
    after = before.over([staying])
    (query,) = leaving.index.vectors(np.array([7]))
    ((number,),) = before.search(query[None], 1, allowed=None).members
    assert before.members[number] is leaving
    assert all(
        after.members[n] is staying for n in after.search(query[None], 9, allowed=None).members[0]
    )
    again = after.over([staying, joined := member(300, 3)])
    (query,) = joined.index.vectors(np.array([7]))
    ((number,),) = again.search(query[None], 1, allowed=None).members
    assert again.members[number] is joined


def test_an_index_of_another_quantizer_does_not_fit() -> None:
    other = train(clustered(900, np.random.default_rng(5)), LISTS)
    assert IvfSq4Stack(QUANTIZER).fits(member(3, 1).index)
    assert IvfSq4Stack(QUANTIZER).fits(member(3, 1, Quantizer(QUANTIZER.centroids.copy())).index)
    assert not IvfSq4Stack(QUANTIZER).fits(member(3, 1, other).index)


def test_copied_codes_are_all_that_a_stack_has_in_memory() -> None:
    large = 64 * LISTS
    assert IvfSq4Stack(QUANTIZER).over([member(large, 1)]).memory_bytes == 0
    stack = IvfSq4Stack(QUANTIZER).over([member(500, 1), member(500, 2)])
    assert stack.memory_bytes == 1_000 * (32 + 4 + 8 + 4 + 4 + 4) + 4 * (LISTS + 1)


Sizes = st.lists(st.integers(1, 1_000_000), max_size=40).map(sorted)


@given(Sizes)
def test_runs_that_become_one_are_neighbours_and_each_is_far_larger_than_the_one_before(
    sizes: list[int],
) -> None:
    groups = grouped(sizes)
    assert [n for group in groups for n in range(group.start, group.stop)] == list(
        range(len(sizes))
    )
    totals: npt.NDArray[np.int64] = np.array([sum(sizes[group]) for group in groups], np.int64)
    assert all(large > 8 * small for small, large in pairwise(totals.tolist()))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what is resident")
def test_codes_that_a_stack_has_copied_are_in_memory_once(tmp_path: Path) -> None:
    members = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        builder = KIND.with_quantizer(QUANTIZER).builder(DIMENSIONS)
        builder.add(clustered(900, np.random.default_rng(number)))
        builder.write(folder)
        index = KIND.open(builder.spec, folder)
        flags, group = np.zeros(900, np.uint8), np.arange(900, dtype=np.uint32)
        members.append(StackMember(index, flags, group, 900, CountedFlags(flags)))
        assert index.run.codes is not None
        assert index.run.codes.sum() > 0, "all pages are read"
    smaps = Path("/proc/self/smaps")
    assert mapped(tmp_path, smaps.read_text(), {CODES_FILE}) >= 3 * 900 * 16
    stack = IvfSq4Stack(QUANTIZER).over(members)
    assert mapped(tmp_path, smaps.read_text(), {CODES_FILE}) == 0
    queries = clustered(4, np.random.default_rng(9))
    assert stack.search(queries, 5, allowed=None).counts.tolist() == [5] * 4
