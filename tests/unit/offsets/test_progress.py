"""What several live tiers report together of the pipeline."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shashin.offsets.progress import (
    PartitionOffsets,
    PipelineProgress,
    StageOffsets,
    merge_dead_letters,
    merge_stages,
)

STAGES = ("downloader", "embedder", "indexer")
OFFSETS = st.dictionaries(
    st.integers(0, 3), st.builds(PartitionOffsets, st.integers(0, 9), st.integers(0, 9))
)
PROGRESSES = st.lists(
    st.builds(
        PipelineProgress,
        st.lists(
            st.builds(
                StageOffsets, st.sampled_from(STAGES), st.just("t"), st.floats(0, 9), OFFSETS
            ),
            max_size=3,
            unique_by=lambda one: one.stage,
        ).map(tuple),
        st.dictionaries(st.sampled_from(["a.dlq", "b.dlq"]), st.integers(0, 9)),
    ),
    max_size=4,
)


@given(PROGRESSES, st.randoms(use_true_random=False))
def test_the_furthest_offset_and_the_largest_lag_count_in_whatever_order(
    progresses: list[PipelineProgress], dice: object
) -> None:
    merged, letters = merge_stages(progresses), merge_dead_letters(progresses)
    shuffled = list(progresses)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert merge_stages(shuffled) == merged
    assert merge_dead_letters(shuffled) == letters
    for name, stage in merged.items():
        reported = [one for p in progresses for one in p.stages if one.stage == name]
        assert stage.seconds == max(one.seconds for one in reported)
        assert stage.partitions.keys() == {p for one in reported for p in one.partitions}
        for partition, state in stage.partitions.items():
            known = [one.partitions[partition] for one in reported if partition in one.partitions]
            assert state.processed == max(one.processed for one in known)
            assert state.end == max(one.end for one in known)
            assert state.behind == max(0, *(one.end - one.processed for one in known), 0)
    for topic, records in letters.items():
        assert records == max(p.dead_letters.get(topic, 0) for p in progresses)


def test_indexers_with_a_part_of_the_partitions_each_are_one_stage() -> None:
    parts = [
        PipelineProgress(
            (StageOffsets("indexer", "vectors", 1.0, {partition: PartitionOffsets(5, 8)}),)
        )
        for partition in (0, 1)
    ]
    assert merge_stages(parts)["indexer"].behind == 6
