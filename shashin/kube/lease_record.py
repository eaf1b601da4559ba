"""The record of a Lease, and who may take it. Pure.

Times in the object are for people: clocks of machines differ. A candidate measures on its own clock
for how long it has seen the same record, and a leader for how long ago it sent its last renewal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shashin.errors import UserError
from shashin.kube.resource import KubeObject, version_of


@dataclass(frozen=True)
class LeaseTimes:
    """How long a lease lasts; all candidates should have the same."""

    duration_seconds: float = 15.0
    """A record that did not change for so long may be taken by another candidate."""
    renew_seconds: float = 10.0
    """A leader that could not renew for so long cancels its work, which has the rest of the duration
    to end."""
    retry_seconds: float = 2.0
    """Between renewals, and between a candidate's looks at the lease."""

    def __post_init__(self) -> None:
        if not 0 < self.retry_seconds < self.renew_seconds < self.duration_seconds:
            raise UserError(
                f"wrong times of a lease: retry {self.retry_seconds} s, renew {self.renew_seconds} s, "
                f"duration {self.duration_seconds} s; expected 0 < retry < renew < duration"
            )

    @property
    def exit_seconds(self) -> float:
        """When work that did not end by then ends with its process, counted from the last renewal."""
        return self.renew_seconds + 0.8 * (self.duration_seconds - self.renew_seconds)


@dataclass(frozen=True)
class LeaseRecord:
    """What a Lease says."""

    holder: str
    """Identity of the leader; empty after it released the lease."""
    duration_seconds: float
    uid: str
    version: str
    """Its resource version: changes with every renewal."""
    transitions: int = 0


def record_of(lease: KubeObject) -> LeaseRecord:
    """Return the record of a Lease object; what is missing or malformed in it counts as empty."""
    spec = lease.get("spec")
    fields: dict[str, Any] = spec if isinstance(spec, dict) else {}
    duration, transitions = fields.get("leaseDurationSeconds"), fields.get("leaseTransitions")
    return LeaseRecord(
        holder=str(fields.get("holderIdentity") or ""),
        duration_seconds=float(duration) if isinstance(duration, int) else 0.0,
        uid=str(lease["metadata"].get("uid", "")),
        version=version_of(lease),
        transitions=transitions if isinstance(transitions, int) else 0,
    )


def may_take(record: LeaseRecord, seen_seconds: float, identity: str, times: LeaseTimes) -> bool:
    """Whether a candidate may take a lease that it has seen unchanged for so many seconds.

    The holder counts with its own duration or the candidate's, whichever is longer.
    """
    if record.holder in {"", identity}:
        return True
    return seen_seconds > max(record.duration_seconds, times.duration_seconds)


def new_spec(identity: str, times: LeaseTimes, *, transitions: int = 0) -> dict[str, Any]:
    """Return the spec with which a candidate takes a lease."""
    return {
        "holderIdentity": identity,
        # The field is an integer, and may not be 0.
        "leaseDurationSeconds": max(1, -int(-times.duration_seconds // 1)),
        "leaseTransitions": transitions,
        "acquireTime": _now(),
        "renewTime": _now(),
    }


def renewed(lease: KubeObject) -> KubeObject:
    """Return a lease as its holder renews it, on condition that nobody changed it meanwhile."""
    return {**lease, "spec": {**lease["spec"], "renewTime": _now()}}


def taken(lease: KubeObject, identity: str, times: LeaseTimes) -> KubeObject:
    """Return a lease as a candidate takes it, on condition that nobody changed it meanwhile."""
    record = record_of(lease)
    transitions = record.transitions + (record.holder != identity)
    return {**lease, "spec": new_spec(identity, times, transitions=transitions)}


def released(lease: KubeObject) -> KubeObject:
    """Return a lease as its holder releases it, so that another may take it at once."""
    return {**lease, "spec": {**lease["spec"], "holderIdentity": "", "renewTime": _now()}}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
