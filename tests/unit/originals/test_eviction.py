"""Which originals are removed: a pure plan."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from shashin.originals.eviction import StoredFile, plan_eviction

FILES = st.lists(
    st.builds(
        StoredFile,
        path=st.integers(0, 10**6).map(lambda number: Path(str(number))),
        size=st.integers(0, 100),
        last_use=st.integers(0, 50).map(float),
    ),
    max_size=40,
    unique_by=lambda file: file.path,
)


@given(files=FILES, max_bytes=st.integers(0, 1500), oldest_use=st.integers(0, 50).map(float))
def test_what_stays_fits_and_was_used_later_than_what_goes(
    files: list[StoredFile], max_bytes: int, oldest_use: float
) -> None:
    plan = plan_eviction(files, max_bytes=max_bytes, oldest_use=oldest_use)
    gone = [*plan.expired, *plan.surplus]
    kept = set(files) - set(gone)
    assert len(gone) == len(set(gone))
    assert sum(file.size for file in kept) <= max_bytes
    assert set(plan.expired) == {file for file in files if file.last_use < oldest_use}
    assert all(file.last_use >= other.last_use for file in kept for other in gone)
    assert all(file.last_use >= plan.before for file in kept)
    if plan.surplus:  # no more than has to
        last = plan.surplus[-1]
        assert sum(file.size for file in kept) + last.size > max_bytes
