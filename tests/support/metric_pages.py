"""What is on a page of metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from docs.generate_metrics import areas
from shashin.metrics.process import FROM_THE_CLIENT_LIBRARY


def unknown_metrics(page: str) -> set[str]:
    """Return the metrics on a page, in the text format, that the catalogue does not have."""
    known = {d.exported_name for area in areas() for d in area.definitions}
    known |= FROM_THE_CLIENT_LIBRARY.keys()
    suffix = {"counter": "_total"}
    families = text_string_to_metric_families(page)
    return {family.name + suffix.get(family.type, "") for family in families} - known
