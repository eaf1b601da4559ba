"""``shashin kafka``: the embedded Kafka alone, and the topics of any Kafka."""

from __future__ import annotations

from typing import Annotated

import typer

from shashin.cli.options import DEFAULT_STATE, JsonOption, KafkaOption, StateOption
from shashin.local.system import System
from shashin.terminal.console import Stages, echo, echo_json
from shashin.terminal.run import run

app = typer.Typer(
    no_args_is_help=True,
    help="Start and stop only the embedded Kafka; create the topics of another one.",
)


@app.command(epilog="Example:  shashin kafka up --json")
def up(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Start the embedded Kafka and wait until it is ready; idempotent."""
    with Stages() as stages:
        address = run(System(state).start_kafka(stages))
    if as_json:
        echo_json({"kafka": address})
    else:
        echo(f"kafka is ready at {address}", style="green")


@app.command(epilog="Example:  shashin kafka down")
def down(state: StateOption = DEFAULT_STATE) -> None:
    """Stop the embedded Kafka; its data stays in the state folder."""
    stopped = run(System(state).stop_kafka())
    echo("kafka stopped" if stopped else "kafka was not running")


@app.command(
    epilog="Example:  shashin kafka topics --kafka kafka.example:9092 --partitions 16 --replication 3"
)
def topics(
    partitions: Annotated[
        int,
        typer.Option(
            min=1,
            help="Partitions of each topic of listings, which can never be changed afterwards.",
        ),
    ] = 4,
    replication: Annotated[int, typer.Option(min=1, help="Replicas of each partition.")] = 1,
    correct: Annotated[
        bool, typer.Option("--correct", help="Correct the settings of topics that exist.")
    ] = False,
    state: StateOption = DEFAULT_STATE,
    kafka: KafkaOption = None,
) -> None:
    """Create the topics that are missing, and check those that exist; idempotent."""
    from shashin.kafka.topic_admin import ensure_topics
    from shashin.kafka.topics import TOPICS

    address = kafka or System(state).kafka_address()
    run(ensure_topics(address, partitions=partitions, replication=replication, correct=correct))
    echo(f"{len(TOPICS)} topics are ready at {address}", style="green")
