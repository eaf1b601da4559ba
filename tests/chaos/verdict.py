"""Comparing what was found with the model. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.plan import Model


@dataclass(frozen=True)
class FoundRow:
    """One visible row of an endpoint."""

    endpoint: str
    version: int
    photo_number: int


@dataclass
class Verdict:
    """Problems by kind."""

    lost: dict[str, str] = field(default_factory=dict)
    """Expected, but not found or incomplete."""
    duplicated: dict[str, str] = field(default_factory=dict)
    """Found in more than one version, or twice in one answer."""
    resurrected: dict[str, str] = field(default_factory=dict)
    """Found, but not expected."""
    gaps: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether there are no problems."""
        return not (self.lost or self.duplicated or self.resurrected or self.gaps)

    @property
    def wrong(self) -> int:
        """Number of listings with problems."""
        return len(self.lost.keys() | self.duplicated.keys() | self.resurrected.keys())

    def add(self, other: Verdict) -> None:
        """Merge another verdict."""
        self.lost |= other.lost
        self.duplicated |= other.duplicated
        self.resurrected |= other.resurrected
        self.gaps += other.gaps

    def line(self, kills: int, listings: int) -> str:
        """Return the last line of a run."""
        return (
            f"chaos: {kills} kills, {listings} listings, {len(self.lost)} lost, "
            f"{len(self.duplicated)} duplicated, {len(self.resurrected)} resurrected, "
            f"{len(self.gaps)} coverage gaps"
        )


def judge(model: Model, rows: Mapping[str, Sequence[FoundRow]]) -> Verdict:
    """Return the problems of the visible rows, by listing."""
    verdict = Verdict()
    for listing_id, expected in model.items():
        found = rows.get(listing_id, ())
        versions = sorted({row.version for row in found})
        if expected is None:
            if found:
                verdict.resurrected[listing_id] = f"versions {versions} are found"
            continue
        photos = {row.photo_number for row in found if row.version == expected.version}
        if photos != set(range(expected.photos)):
            verdict.lost[listing_id] = (
                f"version {expected.version} has {expected.photos} photos, of which {sorted(photos)} "
                f"are found; found are versions {versions}"
            )
        elif versions != [expected.version]:
            verdict.duplicated[listing_id] = (
                f"versions {versions} are found, and only {expected.version} should be"
            )
    for listing_id in rows.keys() - model.keys():
        verdict.resurrected[listing_id] = "it was never published"
    return verdict
