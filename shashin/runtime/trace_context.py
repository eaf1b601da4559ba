"""Where a trace continues, as W3C's headers say it: https://www.w3.org/TR/trace-context. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
HEADERS = (TRACEPARENT, TRACESTATE)

EXEMPLAR_TRACE = "trace_id"
"""The label of an exemplar that has the trace's id, as Grafana and others expect it."""

Carrier = Mapping[str, str]
"""The value of ``traceparent`` and, if there is one, of ``tracestate``, by name."""

_UNKEPT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]")


def is_unkept(traceparent: str) -> bool:
    """Whether a header is well-formed, of the version that is known, and of a trace that is not kept."""
    return _UNKEPT.fullmatch(traceparent) is not None
