"""What was found, held against the model. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.plan import Model


@dataclass(frozen=True)
class FoundRow:
    """One visible row as an endpoint gave it."""

    endpoint: str
    version: int
    photo_number: int


@dataclass
class Verdict:
    """Listings by what is wrong with them."""

    lost: dict[str, str] = field(default_factory=dict)
    """Should be found, and are not, or not whole."""
    duplicated: dict[str, str] = field(default_factory=dict)
    """Are found in a version beside the right one, or twice in one answer."""
    resurrected: dict[str, str] = field(default_factory=dict)
    """Are found, and should not be."""
    gaps: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.duplicated or self.resurrected or self.gaps)

    @property
    def wrong(self) -> int:
        """How many listings are not as they should be."""
        return len(self.lost.keys() | self.duplicated.keys() | self.resurrected.keys())

    def add(self, other: Verdict) -> None:
        """Take up what another look found."""
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
    """Return what is wrong with the rows that can be found, by listing."""
    verdict = Verdict()
    for listing_id, wanted in model.items():
        found = rows.get(listing_id, ())
        versions = sorted({row.version for row in found})
        if wanted is None:
            if found:
                verdict.resurrected[listing_id] = f"versions {versions} are found"
            continue
        photos = {row.photo_number for row in found if row.version == wanted.version}
        if photos != set(range(wanted.photos)):
            verdict.lost[listing_id] = (
                f"version {wanted.version} has {wanted.photos} photos, of which {sorted(photos)} "
                f"are found; found are versions {versions}"
            )
        elif versions != [wanted.version]:
            verdict.duplicated[listing_id] = (
                f"versions {versions} are found, and only {wanted.version} should be"
            )
    for listing_id in rows.keys() - model.keys():
        verdict.resurrected[listing_id] = "it was never published"
    return verdict
