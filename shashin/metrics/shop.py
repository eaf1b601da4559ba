"""The shop of the compose stack, which keeps listing and selling rendered products."""

from __future__ import annotations

from shashin.metrics.core import counter
from shashin.metrics.definitions import Label

EVENTS = counter(
    "shashin_shop_events",
    "Events that the shop has sent, by kind.",
    [Label("kind", "the kind of event", values=("listed", "sold"))],
)
