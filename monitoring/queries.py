"""Queries that many panels have in common."""

from __future__ import annotations

from collections.abc import Sequence

from monitoring.panels import Query

RATE = "[$__rate_interval]"


def quantiles(
    histogram: str, *, by: str = "", where: str = "", shares: Sequence[float] = (0.5, 0.99)
) -> list[Query]:
    """Return a query for each quantile of a histogram, by a label."""
    grouped = f"le, {by}" if by else "le"
    return [
        Query(
            f"histogram_quantile({share}, sum by ({grouped}) (rate({histogram}_bucket{where}{RATE})))",
            f"{{{{{by}}}}} p{share * 100:g}" if by else f"p{share * 100:g}",
        )
        for share in shares
    ]


def rate(counter: str, *, by: str = "", where: str = "", legend: str = "") -> Query:
    """Return the events a second that a counter counts, by labels."""
    grouped = f" by ({by})" if by else ""
    named = legend or " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",") if by)
    return Query(f"sum{grouped} (rate({counter}{where}{RATE}))", named or "all")


def total(gauge: str, *, by: str = "", where: str = "", how: str = "sum") -> Query:
    """Return a gauge over all processes, by labels."""
    grouped = f" by ({by})" if by else ""
    named = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",") if by)
    return Query(f"{how}{grouped} ({gauge}{where})", named or "all")
