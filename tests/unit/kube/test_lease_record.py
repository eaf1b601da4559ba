"""Who may take a lease, and what is written into it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import UserError
from shashin.kube.lease_record import (
    LeaseRecord,
    LeaseTimes,
    may_take,
    new_spec,
    record_of,
    released,
    renewed,
    taken,
)

TIMES = LeaseTimes(duration_seconds=15.0, renew_seconds=10.0, retry_seconds=2.0)


def lease(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "one", "uid": "u", "resourceVersion": "7"}, "spec": spec}


@given(
    theirs=st.integers(1, 60),
    ours=st.floats(1.0, 60.0),
    seen=st.floats(0.0, 120.0),
    delay=st.floats(0.0, 60.0),
)
def test_a_leaders_time_is_over_before_another_may_take_the_lease(
    theirs: int, ours: float, seen: float, delay: float
) -> None:
    leader = LeaseTimes(theirs, renew_seconds=theirs * 0.7, retry_seconds=theirs * 0.1)
    candidate = LeaseTimes(ours, renew_seconds=ours * 0.7, retry_seconds=ours * 0.1)
    record = record_of(lease(**new_spec("leader", leader)))
    # The candidate sees a renewal some time after the leader sent it.
    if may_take(record, seen, "candidate", candidate):
        assert seen + delay > leader.exit_seconds > leader.renew_seconds


@given(st.text(min_size=1, max_size=3), st.text(min_size=1, max_size=3), st.floats(0, 15))
def test_only_a_free_lease_is_taken_at_once(holder: str, identity: str, seen: float) -> None:
    record = LeaseRecord(holder, 15.0, "u", "7")
    assert may_take(record, seen, identity, TIMES) == (holder == identity)
    assert may_take(LeaseRecord("", 15.0, "u", "7"), seen, identity, TIMES)


@given(
    st.dictionaries(
        st.sampled_from(["holderIdentity", "leaseDurationSeconds", "leaseTransitions"]),
        st.none() | st.text(max_size=3) | st.integers() | st.lists(st.none(), max_size=1),
    )
    | st.none()
)
def test_any_lease_has_a_record(spec: Any) -> None:
    assert record_of({"metadata": {"name": "one"}, "spec": spec}).version == ""


def test_a_lease_that_is_taken_counts_its_holders() -> None:
    first = taken(lease(), "one", TIMES)
    again = taken(first, "one", TIMES)
    other = taken(again, "two", TIMES)
    assert [record_of(one).transitions for one in (first, again, other)] == [1, 1, 2]
    assert record_of(other).holder == "two"
    assert other["metadata"] == lease()["metadata"], "the version is the condition"


def test_a_renewal_changes_the_time_alone_and_a_release_frees_the_lease() -> None:
    held = lease(**{**new_spec("one", TIMES), "renewTime": "2026-01-01T00:00:00.000000Z"})
    new = renewed(held)
    assert new["spec"].pop("renewTime") > "2026-01-01"
    assert new["spec"] == {k: v for k, v in held["spec"].items() if k != "renewTime"}
    assert record_of(released(held)).holder == ""
    assert held["spec"]["holderIdentity"] == "one", "the object itself is not changed"


@pytest.mark.parametrize("times", [(15, 15, 2), (15, 10, 10), (15, 10, 0), (10, 15, 2)])
def test_times_that_could_make_two_leaders_are_refused(times: tuple[float, float, float]) -> None:
    with pytest.raises(UserError, match="expected 0 < retry < renew < duration"):
        LeaseTimes(*times)
