"""Snapshots of hidden rows: the format stays readable, damage is refused, and several are combined."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import CorruptShard, UnknownFormat
from shashin.offsets.log_position import LogPosition, furthest, lowest
from shashin.shards.format.hidden_header import is_snapshot_name, snapshot_name
from shashin.shards.format.hidden_snapshot import (
    HiddenSnapshot,
    combined,
)
from tests.unit.shards.test_manifest import KNOWN as MANIFEST

GOLDEN = Path(__file__).parent / "golden" / "hidden-v1.roaring"

POSITION = LogPosition("Zc3pAqNpRDOeW3T8Nqz2gw", {0: 17, 1: 4})
KNOWN = HiddenSnapshot(
    MANIFEST.shard_id,
    MANIFEST.rows_sha256,
    np.array([0, 3, 7, 8, 9, 479], dtype=np.uint32),
    POSITION,
    1_700_002_860.5,
)


def key_of(data: bytes) -> str:
    return f"{MANIFEST.folder}/{snapshot_name(data)}"


def read(data: bytes) -> HiddenSnapshot:
    return HiddenSnapshot.of_data(data, key=key_of(data), manifest=MANIFEST)


def same(one: HiddenSnapshot, other: HiddenSnapshot) -> bool:
    return one.rows.tolist() == other.rows.tolist() and replace(one, rows=other.rows) == other


def test_the_written_format_does_not_change_and_stays_readable() -> None:
    assert KNOWN.data == GOLDEN.read_bytes()
    assert same(read(GOLDEN.read_bytes()), KNOWN)
    assert snapshot_name(KNOWN.data) == "hidden-d140528696405b93.roaring"
    assert is_snapshot_name(snapshot_name(KNOWN.data))
    assert not is_snapshot_name("rows.60303ae22b998861.arrow")


OFFSETS = st.dictionaries(st.integers(0, 3), st.integers(0, 9))
ROWS = st.sets(st.integers(0, 479)).map(lambda rows: np.array(sorted(rows), dtype=np.uint32))
SNAPSHOTS = st.builds(
    replace,
    st.just(KNOWN),
    rows=ROWS,
    position=st.builds(LogPosition, st.sampled_from(["now", "before", ""]), OFFSETS),
)


@given(SNAPSHOTS)
def test_what_is_written_is_read(snapshot: HiddenSnapshot) -> None:
    assert same(read(snapshot.data), snapshot)


@given(st.data())
def test_a_damaged_snapshot_is_refused_by_name(data: st.DataObject) -> None:
    whole = KNOWN.data
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(
        st.sampled_from([whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]])
    )
    with pytest.raises(CorruptShard, match=snapshot_name(whole)):
        HiddenSnapshot.of_data(damaged, key=key_of(whole), manifest=MANIFEST)


@given(st.binary(max_size=40), st.sampled_from(["{}", "[]", "7", ""]))
def test_anything_else_under_a_right_name_is_refused(bitmap: bytes, header: str) -> None:
    data = header.encode() + b"\n" + bitmap
    with pytest.raises(CorruptShard, match="is not a hidden snapshot"):
        read(data)


def with_header(**changes: object) -> bytes:
    line, _, bitmap = KNOWN.data.partition(b"\n")
    return json.dumps({**json.loads(line), **changes}).encode() + b"\n" + bitmap


def test_a_snapshot_that_contradicts_its_shard_or_itself_is_refused() -> None:
    with pytest.raises(CorruptShard, match="is a snapshot of shard 'other'"):
        read(with_header(shard_id="other"))
    with pytest.raises(CorruptShard, match="names 6 rows up to 479; its header says 5"):
        read(with_header(hidden=5))
    with pytest.raises(CorruptShard, match="the shard has 479"):
        HiddenSnapshot.of_data(
            KNOWN.data, key=key_of(KNOWN.data), manifest=replace(MANIFEST, rows=479)
        )
    with pytest.raises(CorruptShard, match="is not a hidden snapshot"):
        read(with_header(offsets={"0": -1}))


def test_a_newer_format_is_unknown() -> None:
    with pytest.raises(UnknownFormat, match=r"has format 'shashin.hidden/9'"):
        read(with_header(format="shashin.hidden/9"))


@given(st.lists(SNAPSHOTS, max_size=4), OFFSETS)
def test_all_snapshots_together_hide_what_any_hides_up_to_the_furthest_of_the_topic(
    snapshots: list[HiddenSnapshot], dropped_up_to: dict[int, int]
) -> None:
    dropped = {str(partition): offset for partition, offset in dropped_up_to.items()}
    manifest = replace(MANIFEST, hidden_offsets=dropped)
    other_rows = replace(KNOWN, rows_sha256="0" * 64, position=LogPosition("now", {0: 99}))
    state = combined(manifest, [*snapshots, other_rows], "now")
    assert set(state.rows.tolist()) == {row for s in snapshots for row in s.rows.tolist()}
    usable = [s.position for s in snapshots if s.position.topic_id != "before"]
    for partition in range(4):
        assert state.position.offset(partition) == max(
            0, dropped_up_to.get(partition, 0), *(p.offset(partition) for p in usable)
        )
    assert state.of_another_topic == (
        any(s.position.offsets for s in snapshots)
        and not dropped_up_to
        and not any(p.offsets for p in usable)
    )


POSITIONS = st.lists(st.builds(LogPosition, st.just("now"), OFFSETS), min_size=1, max_size=4)


@given(POSITIONS)
def test_the_lowest_position_is_reached_by_all_and_the_furthest_reaches_all(
    positions: list[LogPosition],
) -> None:
    assert all(p.reaches(lowest("now", positions)) for p in positions)
    assert all(furthest("now", positions).reaches(p) for p in positions)
