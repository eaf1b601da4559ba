"""``shashin kafka``: start and stop only the embedded Kafka."""

from __future__ import annotations

import typer

from shashin.cli.options import DEFAULT_STATE, JsonOption, StateOption
from shashin.local.system import System
from shashin.terminal.console import Stages, echo, echo_json
from shashin.terminal.run import run

app = typer.Typer(no_args_is_help=True, help="Start and stop only the embedded Kafka.")


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
