"""Options that several commands share, and how a command runs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

T = TypeVar("T")

DEFAULT_STATE = Path(".shashin")

StateOption = Annotated[
    Path,
    typer.Option(
        "--state",
        envvar="SHASHIN_STATE",
        help="Folder that holds everything: Kafka's log, photos, shards, process logs.",
        show_default=True,
        file_okay=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
RouterOption = Annotated[
    str | None,
    typer.Option(
        "--router",
        envvar="SHASHIN_ROUTER",
        metavar="HOST:PORT",
        help="Ask this router instead of the one in the state folder.",
    ),
]
KafkaOption = Annotated[
    str | None,
    typer.Option(
        "--kafka",
        envvar="SHASHIN_KAFKA",
        metavar="HOST:PORT",
        help="Use this Kafka instead of the embedded one.",
    ),
]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work; SIGTERM ends it as Ctrl-C does, so that it can clean up."""

    async def cancellable() -> T:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        stopped = False

        def stop() -> None:
            nonlocal stopped
            stopped = True
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        try:
            return await task
        except asyncio.CancelledError:
            if stopped:
                raise KeyboardInterrupt from None
            raise
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    return asyncio.run(cancellable())
