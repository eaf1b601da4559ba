"""Queries that many panels have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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


def mean(histogram: str, *, by: str = "") -> Query:
    """Return the mean of what a histogram counts, by a label; small counts have no useful quantiles."""
    grouped = f" by ({by})" if by else ""
    sums = (f"sum{grouped} (rate({histogram}_{part}{RATE}))" for part in ("sum", "count"))
    return Query(" / ".join(sums), f"{{{{{by}}}}}" if by else "mean")


def calls_to_endpoints() -> list[Query]:
    """Return p99 of the router's calls by tier; those to embedders, which have none, are named so."""
    histogram = "shashin_rpc_client_seconds"
    tiers = quantiles(histogram, by="tier", where='{tier!=""}', shares=(0.99,))
    (embedder,) = quantiles(histogram, where='{tier=""}', shares=(0.99,))
    return [*tiers, replace(embedder, legend="embedder p99")]


def rates_by_tier(counter: str, what: str) -> list[Query]:
    """Return the events a second of each tier's endpoints, and of embedders, which have no tier."""
    return [
        rate(counter, by="tier", where='{tier!=""}', legend=f"{{{{tier}}}} {what}"),
        rate(counter, where='{tier=""}', legend=f"embedder {what}"),
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
