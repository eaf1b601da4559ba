"""The spans of consumers and producers: one per batch, and in each record's own trace one per stage.

A batch is of many traces, so its span begins a trace of its own and links to those of its records; each
record's span continues the record's trace, and links to the batch. Nothing here is called while tracing is
off, except ``batch_span`` and ``trace_headers``, which then only return.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from shashin.kafka.record_traces import Headers, extract, inject
from shashin.runtime import tracing

if TYPE_CHECKING:
    from shashin.kafka.producer import OutRecord
    from shashin.kafka.records import InRecord
    from shashin.kafka.stage import Outcome
    from shashin.runtime.spans import Span, Tracer, Value

SEARCHABLE = "searchable"
"""The event of the indexer's span: from here on the listing can be found."""

_MAX_LINKS = 128
"""Of a batch: what the SDK keeps."""
_MAX_KEY = 128
_OFF = nullcontext()


def batch_span(
    topic: str, group: str, records: Sequence[InRecord]
) -> AbstractContextManager[Span | None]:
    """Return the span of a batch, current while the context is open; nothing while tracing is off."""
    if (tracer := tracing.tracer()) is None:
        return _OFF
    origins = (extract(record.headers) for record in records[:_MAX_LINKS])
    return tracer.span(
        f"process {topic}",
        "consumer",
        links=[origin for origin in origins if origin is not None],
        attributes={
            **_of_topic(topic, "process"),
            "messaging.consumer.group.name": group,
            "messaging.batch.message_count": len(records),
        },
    )


async def in_record_span(
    tracer: Tracer, step: str, record: InRecord, process: Callable[[], Awaitable[Outcome]]
) -> Outcome:
    """Process a record in a span of the record's trace."""
    with tracer.span(
        step,
        "consumer",
        parent=extract(record.headers),
        links=_of_batch(),
        attributes=_of(record),
    ) as span:
        found = await process()
        if (error := found.retry_for) is not None:
            span.fail(error.reason)
        elif found.dead_lettered:
            span.fail(found.dead_letters[0].error.reason)
        return found


def note_searchable(tracer: Tracer, record: InRecord, began_ns: int) -> None:
    """Make the span of a record whose rows are searchable from now on."""
    span = tracer.start(
        "index",
        "consumer",
        parent=extract(record.headers),
        links=_of_batch(),
        attributes=_of(record),
        began_ns=began_ns,
    )
    span.event(SEARCHABLE)
    span.end()


def trace_headers() -> Headers:
    """Return the headers by which a record continues the current trace; none outside of one."""
    span = tracing.current()
    return () if span is None else inject((), span.carrier)


@contextmanager
def published(
    tracer: Tracer, records: Sequence[OutRecord], begins: Callable[[OutRecord], bool]
) -> Iterator[list[OutRecord]]:
    """Yield records to send, those that begin a trace with its headers, in spans that end with the context."""
    spans: list[Span] = []
    sent = []
    for record in records:
        if begins(record) and extract(record.headers) is None:
            span = tracer.start(
                f"publish {record.topic}",
                "producer",
                parent=tracing.current(),
                attributes={**_of_topic(record.topic, "publish"), **_of_key(record.key)},
            )
            spans.append(span)
            sent.append(replace(record, headers=inject(record.headers, span.carrier)))
        else:
            sent.append(record)
    try:
        yield sent
    except BaseException as error:
        for span in spans:
            span.fail(type(error).__name__)
        raise
    finally:
        for span in spans:
            span.end()


def _of_batch() -> Sequence[Span]:
    batch = tracing.current()
    return () if batch is None else (batch,)


def _of(record: InRecord) -> dict[str, Value]:
    return {
        **_of_topic(record.topic, "process"),
        "messaging.destination.partition.id": str(record.partition),
        "messaging.kafka.offset": record.offset,
        **_of_key(record.key),
    }


def _of_topic(topic: str, operation: str) -> dict[str, Value]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.destination.name": topic,
    }


def _of_key(key: bytes | None) -> dict[str, Value]:
    """Return the attribute of a key that is text, as listing ids are."""
    if key is None or len(key) > _MAX_KEY or not key.isascii():
        return {}
    return {"messaging.kafka.message.key": key.decode("ascii")}
