"""Where a trace continues, as W3C's headers say it: https://www.w3.org/TR/trace-context. Pure."""

from __future__ import annotations

from collections.abc import Mapping

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
HEADERS = (TRACEPARENT, TRACESTATE)

EXEMPLAR_TRACE = "trace_id"
"""The label of an exemplar that has the trace's id, as Grafana and others expect it."""

Carrier = Mapping[str, str]
"""The value of ``traceparent`` and, if there is one, of ``tracestate``, by name."""
