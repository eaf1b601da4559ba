"""Spans: what is off while tracing is off, what is kept, and what is dropped."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import REGISTRY

from shashin.errors import UserError
from shashin.local.ports import free_port
from shashin.runtime import tracing
from shashin.runtime.settings import check_trace_endpoint
from shashin.runtime.span_queue import QUEUE_SPANS, SpanQueue
from shashin.runtime.trace_context import is_unkept
from tests.support.collector import Collector, collecting
from tests.support.running_service import ROOT
from tests.support.traced import tracing_on
from tests.support.waiting import until

FOREIGN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"
"""Of another system; the last digit says whether it is kept."""
TRACE, SPAN = FOREIGN.split("-")[1:3]

IMPORT_SERVICES = """
import importlib, pkgutil, sys
import services
for module in pkgutil.walk_packages(services.__path__, "services."):
    if not module.name.endswith("__main__") and not module.name.startswith("services.router.rest"):
        importlib.import_module(module.name)
import shashin.runtime.service, shashin.rpc.server, shashin.kafka.consume
parts = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto")
print([name for name in sys.modules if name.startswith((*parts, "opentelemetry.trace"))])
import services.router.rest.app  # FastAPI imports the interface, and nothing that makes or sends spans
print([name for name in sys.modules if name.startswith(parts)])
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


def dropped(reason: str) -> float:
    found = REGISTRY.get_sample_value("shashin_trace_dropped_spans_total", {"reason": reason})
    assert found is not None
    return found


def sent() -> float:
    return REGISTRY.get_sample_value("shashin_trace_sent_spans_total") or 0.0


# --- off ------------------------------------------------------------------------------------------


def test_no_service_imports_opentelemetry_while_tracing_is_off() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IMPORT_SERVICES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (ended.returncode, ended.stdout) == (0, "[]\n[]\n"), ended.stderr


def test_without_an_endpoint_there_is_no_tracer_and_no_current_span() -> None:
    tracing.start("test", endpoint="", share=1.0, per_second=1)
    assert tracing.tracer() is None
    assert tracing.current() is None
    tracing.stop()


@pytest.mark.parametrize("value", ["", "http://collector:4317", "https://10.0.0.1:4317/"])
def test_an_endpoint_is_empty_or_an_address(value: str) -> None:
    check_trace_endpoint(value)


@pytest.mark.parametrize(
    "value", ["collector:4317", "http://collector", "http://user:pw@collector:4317", "ftp://c:1"]
)
def test_any_other_endpoint_is_refused_without_repeating_it(value: str) -> None:
    with pytest.raises(UserError) as refused:
        check_trace_endpoint(value)
    assert value not in str(refused.value)


# --- on -------------------------------------------------------------------------------------------


def test_spans_come_in_as_they_were_made(collector: Collector) -> None:
    before = sent()
    with tracing_on(collector) as tracer:
        with tracer.span("outer", "server", attributes={"a": 1}) as outer:
            assert tracing.current() is outer
            with tracer.span("inner", "client", parent=outer) as inner:
                inner.event("halfway")
        assert tracing.current() is None
    found = {span.name: span for span in collector.spans(service="test")}
    assert found.keys() == {"outer", "inner"}
    assert found["inner"].parent_id == found["outer"].span_id
    assert found["inner"].trace_id == found["outer"].trace_id
    assert (found["outer"].parent_id, found["outer"].attributes) == ("", {"a": 1})
    assert (found["inner"].kind, found["inner"].events) == ("client", ("halfway",))
    assert found["outer"].log_ids == outer.log_fields
    assert sent() == before + 2


def test_a_trace_that_began_elsewhere_is_continued(collector: Collector) -> None:
    parent = {"traceparent": FOREIGN + "1"}
    with tracing_on(collector, share=0.0) as tracer, tracer.span("kept", parent=parent) as span:
        assert span.carrier["traceparent"].startswith(f"00-{TRACE}-")
    (span_,) = collector.spans()
    assert (span_.name, span_.trace_id, span_.parent_id) == ("kept", TRACE, SPAN)


@pytest.mark.parametrize("version", ["00", "01"])
def test_a_trace_that_is_not_kept_elsewhere_is_not_kept_here_or_behind(
    collector: Collector, version: str
) -> None:
    carrier = {"traceparent": f"{version}-{TRACE}-{SPAN}-00", "tracestate": "vendor=1"}
    with tracing_on(collector) as tracer:
        with tracer.span("first", "server", parent=carrier, attributes={"a": 1}) as first:
            with tracer.span("second", "client", parent=tracing.current()) as second:
                second.event("halfway")
                second.set("b", 2)
                second.cancel()
            assert second.carrier == {**carrier, "traceparent": f"00-{TRACE}-{SPAN}-00"}
            assert second.log_fields == {"trace_id": TRACE, "span_id": SPAN}
            assert tracing.exemplar() is None
        with tracer.serving("call", "client", [first, second], {}) as call:
            call.fail("UNAVAILABLE")
            assert call.carrier == first.carrier
        tracer.shared("work", [first, second], 0.25, {})
        tracer.start("kept", links=[carrier, first]).end()
    (kept,) = collector.spans()
    assert (kept.name, kept.links) == ("kept", ())


def test_a_trace_that_begins_here_and_is_not_kept_says_so_to_the_next_process(
    collector: Collector,
) -> None:
    with tracing_on(collector, share=0.0) as tracer:
        headers = [tracer.start("own").carrier["traceparent"] for _ in range(100)]
        assert all(is_unkept(header) for header in headers)
        assert len(set(headers)) == len(headers)
        with tracer.span("from there", parent={"traceparent": headers[0]}) as span:
            assert not span.is_kept
    assert collector.spans() == []


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        "no trace",
        FOREIGN,
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}x-{SPAN}-01",
        "\u00e9" * 55,
    ],
)
def test_a_malformed_trace_is_ignored(collector: Collector, malformed: str) -> None:
    carrier = {"traceparent": malformed}
    with tracing_on(collector) as tracer, tracer.span("own", parent=carrier, links=[carrier]):
        pass
    (span,) = collector.spans()
    assert (span.parent_id, span.links) == ("", ())
    assert span.trace_id != TRACE


def test_of_the_traces_that_begin_here_no_more_are_kept_than_the_limit(
    collector: Collector,
) -> None:
    with tracing_on(collector, per_second=0.01) as tracer:
        first, second = (tracer.start("of no other") for _ in range(2))
        continued = tracer.start("of another", parent=first.carrier)
        assert (first.is_kept, second.is_kept, continued.is_kept) == (True, False, True)


def test_of_the_traces_that_begin_here_the_share_is_kept(collector: Collector) -> None:
    with tracing_on(collector, share=0.5) as tracer:
        for _ in range(400):
            with tracer.span("first") as first, tracer.span("second", parent=first):
                pass
    firsts, seconds = collector.spans(name="first"), collector.spans(name="second")
    # Whole traces; outside of these bounds once in 10^15 runs.
    assert {span.trace_id for span in firsts} == {span.trace_id for span in seconds}
    assert 120 < len(firsts) < 280


async def test_a_span_notes_how_it_ends(collector: Collector) -> None:
    with tracing_on(collector) as tracer:

        async def hang(began: asyncio.Event) -> None:
            with tracer.span("cancelled"):
                began.set()
                await asyncio.Event().wait()

        began = asyncio.Event()
        task = asyncio.ensure_future(hang(began))
        await began.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with pytest.raises(UserError), tracer.span("refused"):
            raise UserError("https://host/photo?signature=S3CRET")
        with pytest.raises(ZeroDivisionError), tracer.span("failed"):
            raise ZeroDivisionError("S3CRET")
    found = {span.name: span for span in collector.spans()}
    assert (found["cancelled"].failed, found["cancelled"].attributes) == (
        False,
        {"cancelled": True},
    )
    assert (found["refused"].failed, found["refused"].attributes) == (
        True,
        {"error.type": "UserError"},
    )
    assert found["failed"].attributes == {"error.type": "ZeroDivisionError"}
    assert "S3CRET" not in collector.text()


def test_work_for_several_spans_is_linked_with_all_and_part_of_one_that_is_kept(
    collector: Collector,
) -> None:
    with tracing_on(collector) as tracer:
        unkept = tracer.start("unkept", parent={"traceparent": FOREIGN + "0"})
        first, second = tracer.start("first"), tracer.start("second")
        with tracer.serving("call", "client", [unkept, first, second], {}):
            pass
        tracer.shared("work", [first, second], 0.25, {})
        tracer.shared("for nobody", [], 0.25, {})
        for span in (unkept, first, second):
            span.end()
    found = {span.name: span for span in collector.spans()}
    assert found.keys() == {"first", "second", "call", "work"}
    call, work = found["call"], found["work"]
    assert call.parent_id == work.parent_id == found["first"].span_id
    assert call.links == work.links == (found["second"].identity,)
    assert found["second"].links == (call.identity, work.identity)
    assert work.ended_ns - work.began_ns >= 250_000_000


# --- a collector that is gone ---------------------------------------------------------------------


async def test_what_no_collector_takes_is_dropped_and_counted() -> None:
    before = dropped("not_delivered") + dropped("at_shutdown")
    tracing.start("test", endpoint=f"http://127.0.0.1:{free_port()}", share=1.0, per_second=1)
    tracer = tracing.tracer()
    assert tracer is not None
    for _ in range(10):
        tracer.start("span").end()
    tracing.stop()
    await until(
        lambda: dropped("not_delivered") + dropped("at_shutdown") == before + 10,
        "all of them are counted",
    )


class Stuck(SpanExporter):
    """Hangs until the process ends, as a collector behind a firewall does."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += len(spans)
        self.begun.set()
        self.ended.wait()
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.ended.set()


async def test_what_does_not_fit_is_dropped_at_once_and_the_end_does_not_wait_for_a_stuck_collector() -> (
    None
):
    full, late, lost = dropped("queue_full"), dropped("at_shutdown"), dropped("not_delivered")
    stuck = Stuck()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanQueue(stuck, close_seconds=0.01))
    tracer = provider.get_tracer("test")
    tracer.start_span("first").end()
    stuck.begun.wait()
    for _ in range(QUEUE_SPANS + 7):
        tracer.start_span("more").end()
    assert dropped("queue_full") == full + 7
    provider.shutdown()
    tracer.start_span("too late").end()
    assert dropped("at_shutdown") == late + QUEUE_SPANS + 1
    await until(lambda: dropped("not_delivered") == lost + stuck.spans, "those under way as well")


async def test_spans_are_sent_again_once_a_collector_is_back() -> None:
    port = free_port()
    tracing.start("test", endpoint=f"http://127.0.0.1:{port}", share=1.0, per_second=1)
    tracer = tracing.tracer()
    assert tracer is not None
    lost = dropped("not_delivered")
    tracer.start("lost").end()
    await until(lambda: dropped("not_delivered") == lost + 1, "it is dropped")
    with collecting(port) as collector:
        tracer.start("found").end()
        await until(lambda: collector.spans(name="found"), "the next one comes in")
        tracing.stop()
