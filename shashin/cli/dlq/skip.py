"""``shashin dlq skip``: give up a batch of records that no service can decode."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from shashin.cli.options import DEFAULT_STATE, JsonOption, KafkaOption, StateOption, YesOption
from shashin.client.topic_tails import CLIENT_ID
from shashin.errors import UserError
from shashin.kafka.damaged_batches import skip_dead_letter
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import Producer
from shashin.kafka.records import InRecord
from shashin.kafka.topics import DEAD_LETTER_SUFFIX, DEAD_LETTER_TOPICS
from shashin.local.system import System
from shashin.terminal.console import echo, echo_json, echo_stderr
from shashin.terminal.run import run

_PLACE = re.compile(r"(?P<topic>[^:]+):(?P<partition>\d{1,9}):(?P<offset>\d{1,18})", re.ASCII)


def skip(
    place: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC:PARTITION:OFFSET", help="Where a service waits, as /healthz shows it."
        ),
    ],
    *,
    yes: YesOption = False,
    kafka: KafkaOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Give up a batch that cannot be decoded: it is dead-lettered, and its readers go on after it."""
    topic, partition, offset = parse_place(place)
    address = kafka or System(state).kafka_address()
    record = run(_batch_at(address, topic, partition, offset))
    assert record.batch is not None
    last = record.batch.next_offset - 1
    what = f"offsets {record.batch.first_offset} to {last} of {topic}[{partition}]"
    if not yes and sys.stdin.isatty() and not typer.confirm(f"give up {what}?", err=True):
        echo_stderr("nothing changed")
        raise typer.Exit(1)
    run(_dead_letter(address, record))
    if as_json:
        echo_json(
            {
                "topic": topic,
                "partition": partition,
                "first_offset": record.batch.first_offset,
                "last_offset": last,
                "reason": record.batch.reason,
            }
        )
        return
    echo(
        f"{what} are given up; the batch is in {topic}{DEAD_LETTER_SUFFIX}, and services that wait "
        "at it go on within seconds",
        style="green",
    )


def parse_place(text: str) -> tuple[str, int, int]:
    """Parse ``TOPIC:PARTITION:OFFSET``.

    Raises:
        UserError: if it is not a place in a topic whose records can be dead-lettered.
    """
    found = _PLACE.fullmatch(text)
    if found is None or found["topic"] + DEAD_LETTER_SUFFIX not in DEAD_LETTER_TOPICS:
        topics = ", ".join(name.removesuffix(DEAD_LETTER_SUFFIX) for name in DEAD_LETTER_TOPICS)
        raise UserError(
            f"{text!r} is not a place in a topic: expected TOPIC:PARTITION:OFFSET, such as "
            f"listings.events:3:1200, with one of the topics {topics}"
        )
    return found["topic"], int(found["partition"]), int(found["offset"])


async def _batch_at(kafka: str, topic: str, partition: int, offset: int) -> InRecord:
    async with LogReader(kafka, topic, client_id=CLIENT_ID) as reader:
        partitions = await reader.partitions()
        if partition not in partitions:
            raise UserError(f"{topic} has the partitions 0 to {partitions[-1]}, not {partition}")
        begin = (await reader.begin_offsets([partition]))[partition]
        end = (await reader.end_offsets([partition]))[partition]
        if not begin <= offset < end:
            raise UserError(f"{topic}[{partition}] has the offsets {begin} to {end - 1}")
        async for record in reader.between({partition: offset}, {partition: end}):
            if record.batch is not None and record.batch.first_offset <= offset:
                return record
            break
    raise UserError(
        f"the records at {topic}[{partition}]@{offset} can be decoded: there is nothing to skip"
    )


async def _dead_letter(kafka: str, record: InRecord) -> None:
    async with Producer(kafka, client_id=CLIENT_ID) as producer:
        await producer.send_all([skip_dead_letter(record).as_record()])
