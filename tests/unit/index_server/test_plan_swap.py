"""plan_swap for any wanted and any subset of loadable shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from services.index_server.swap import Swap, plan_swap
from shashin.shards.sealed_shard import SealedShard


@dataclass(frozen=True)
class Named:
    """The only attribute of a shard that plan_swap uses."""

    shard_id: str


SHARDS = {name: cast("SealedShard", Named(name)) for name in "abcdef"}
NAMES = st.lists(st.sampled_from("abcdef"), unique=True)


def plan(serving: list[str], named: list[str], loadable: set[str]) -> Swap:
    loaded = {name: SHARDS[name] for name in (*serving, *named) if name in {*serving, *loadable}}
    return plan_swap(tuple(SHARDS[name] for name in serving), loaded, named)


def names(shards: tuple[SealedShard, ...]) -> list[str]:
    return [shard.shard_id for shard in shards]


@given(NAMES, NAMES, st.sets(st.sampled_from("abcdef")))
def test_loaded_shards_are_served_and_nothing_is_dropped_while_one_is_missing(
    serving: list[str], named: list[str], loadable: set[str]
) -> None:
    swap = plan(serving, named, loadable)
    serve, drop = names(swap.serve), names(swap.drop)
    whole = set(named) <= {*serving, *loadable}
    assert len(serve) == len(set(serve))
    assert set(named) & {*serving, *loadable} <= set(serve)
    if whole:
        assert set(serve) == set(named)
    else:
        assert set(serving) <= set(serve) <= {*serving, *named}
        assert drop == []
    assert set(serving) <= set(serve) | set(drop), "each is kept or dropped"
    assert not set(serve) & set(drop)


@given(NAMES, NAMES, st.sets(st.sampled_from("abcdef")))
def test_a_second_swap_to_the_same_shards_changes_nothing(
    serving: list[str], named: list[str], loadable: set[str]
) -> None:
    first = plan(serving, named, loadable)
    second = plan(names(first.serve), named, loadable)
    assert second == Swap(first.serve, ())


def test_shards_kept_for_a_missing_one_are_dropped_once_it_is_loaded() -> None:
    waiting = plan(["a", "b"], ["b", "c"], set())
    assert names(waiting.serve) == ["b", "a"]
    fixed = plan(names(waiting.serve), ["b", "c"], {"c"})
    assert (names(fixed.serve), names(fixed.drop)) == (["b", "c"], ["a"])
