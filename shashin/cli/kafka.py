"""``shashin kafka``: the embedded Kafka by itself."""

from __future__ import annotations

import typer

from shashin.cli.options import DEFAULT_STATE, JsonOption, StateOption
from shashin.local.system import System
from shashin.terminal.console import Stages, say, say_json
from shashin.terminal.run import run

app = typer.Typer(no_args_is_help=True, help="The embedded Kafka by itself.")


@app.command(epilog="Example:  shashin kafka up --json")
def up(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Start the embedded Kafka and wait until it answers; safe to repeat."""
    with Stages() as stages:
        address = run(System(state).start_kafka(stages))
    if as_json:
        say_json({"kafka": address})
    else:
        say(f"kafka answers at {address}", style="green")


@app.command(epilog="Example:  shashin kafka down")
def down(state: StateOption = DEFAULT_STATE) -> None:
    """Stop the embedded Kafka; its log stays in the state folder."""
    stopped = run(System(state).stop_kafka())
    say("kafka is stopped" if stopped else "kafka was not running")
