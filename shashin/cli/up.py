"""``shashin up``, ``down`` and ``status``: manage every process of a state folder."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from shashin.cli.coverage import status_document
from shashin.cli.options import (
    DEFAULT_STATE,
    BucketSecondsOption,
    JsonOption,
    KafkaOption,
    RepositoryOption,
    StateOption,
)
from shashin.client.coverage_text import coverage_line, coverage_style
from shashin.client.endpoint_text import other_model_lines
from shashin.client.router import RouterClient
from shashin.errors import ShashinError
from shashin.local.given_settings import PHOTO_ROOTS, settings_not_used, settings_passed_on
from shashin.local.health import with_problems
from shashin.local.processes import ProcessRow
from shashin.local.restart import Restart
from shashin.local.system import DEFAULT_MODEL, System, UpOptions
from shashin.terminal.console import (
    Stages,
    command,
    echo,
    echo_json,
    echo_stderr,
    echo_table,
    megabytes,
)
from shashin.terminal.run import run
from shashin.v1 import search_pb2

_STOPPING = "stopping all processes"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example:  shashin up --bucket-seconds 60")(up)
    app.command(epilog="Example:  shashin down")(down)
    app.command(epilog="Example:  shashin status --json")(status)


def up(
    *,
    kafka: KafkaOption = None,
    repository: RepositoryOption = None,
    bucket_seconds: BucketSecondsOption = 3600,
    grace_seconds: Annotated[
        float,
        typer.Option(
            envvar="SHASHIN_GRACE_SECONDS",
            help="Seconds after a bucket's end before an idle partition is sealed.",
            min=0,
        ),
    ] = 60.0,
    partitions: Annotated[
        int,
        typer.Option(help="Partitions per topic, applied when topics are created.", min=1, max=256),
    ] = 4,
    model: Annotated[
        str,
        typer.Option(
            envvar="SHASHIN_MODEL",
            help="Embedding model: demo-v1, efficientnet-lite0, torchvision:NAME (downloads weights), "
            "repository:ID for a published one, or the path of a checkpoint.",
        ),
    ] = DEFAULT_MODEL,
    also: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Second model to run beside it, until it is activated: `shashin model activate`.",
        ),
    ] = None,
    canary: Annotated[
        bool,
        typer.Option(
            "--canary/--no-canary",
            help="Measure all the time how fresh searches are, with listings of its own.",
        ),
    ] = True,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Start Kafka and all services, and wait until they are ready; idempotent.

    Settings of the services can be given in the environment; those used and not used are printed.
    """
    system = System(state)
    if ignored := settings_not_used(os.environ):
        echo_stderr(
            f"not used from the environment, since `shashin up` sets them itself: {', '.join(ignored)}",
            style="yellow",
        )
    options = UpOptions(
        kafka=kafka,
        repository=repository,
        bucket_seconds=bucket_seconds,
        grace_seconds=grace_seconds,
        partitions=partitions,
        model=model,
        also=also,
        canary=canary,
    )
    with Stages() as stages:
        started = run(system.start(options, stages))
    echo("everything is running" if started else "everything was already running", style="green")
    if given := settings_passed_on(os.environ):
        echo(f"settings from the environment: {', '.join(map(_described, given))}")
    echo_table(
        ["", "address"],
        [
            ("search page, REST", system.page_url() or "-"),
            ("router (gRPC)", system.router_address()),
            ("embedder (gRPC)", system.embedder_address()),
            ("kafka", system.kafka_address()),
            ("shards", system.repository),
            ("logs", system.logs),
        ],
    )
    at = () if state == DEFAULT_STATE else ("--state", state)
    echo("next steps:")
    echo(f"  {command('publish', 'FOLDER', *at)}     (publish your own photos)")
    echo(f"  {command('search', 'PHOTO', '--open', *at)}")
    echo(f"  {command('status', *at)}")
    echo(f"  {command('down', *at)}")


def _described(name: str) -> str:
    return f"{name} (added to the folder of published photos)" if name == PHOTO_ROOTS else name


def down(state: StateOption = DEFAULT_STATE) -> None:
    """Stop all processes; photos, shards and Kafka's data stay in the state folder."""
    system = System(state)
    with Stages() as stages:
        if system.processes():
            stages.set(_STOPPING)
        stopped = run(system.stop())
        stages.finish(_STOPPING)
    echo("everything stopped" if stopped else "nothing was running")


def status(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Show processes, searched endpoints and coverage; exits with 1 if anything is unhealthy."""
    system = System(state)
    processes = run(with_problems(system.processes()))
    searched: search_pb2.StatusResponse | None = None
    problem = ""
    if processes:
        try:
            searched = run(_ask_router(system))
        except ShashinError as error:
            problem = error.message
    complete = searched is not None and searched.coverage.complete
    well = bool(processes) and all(p.well and not p.problems for p in processes) and complete
    if as_json:
        echo_json(
            {
                "running": bool(processes),
                "well": well,
                "processes": [_process_document(process) for process in processes],
                "router": None if searched is None else status_document(searched),
            }
        )
    elif not processes:
        echo(f"nothing is running in {system.folder}: `shashin up` starts everything")
    else:
        _print_status(processes, searched, problem)
    if not well:
        raise typer.Exit(1)


async def _ask_router(system: System) -> search_pb2.StatusResponse:
    async with RouterClient(system.router_address()) as router:
        return await router.status()


def _print_status(
    processes: list[ProcessRow], searched: search_pb2.StatusResponse | None, problem: str
) -> None:
    echo_table(
        ["process", "status", ">pid", ">restarts", ">memory", "address"],
        [
            (
                process.name,
                ": ".join(filter(None, (process.status, process.detail, process.problems))),
                process.pid or "-",
                process.restarts,
                megabytes(process.rss_bytes) if process.rss_bytes else "-",
                process.addresses.get("grpc") or process.addresses.get("kafka", ""),
            )
            for process in processes
        ],
    )
    echo(f"total memory: {megabytes(sum(process.rss_bytes for process in processes))}")
    for process in processes:
        if (last := process.last_restart) is not None:
            echo(
                f"{process.name} was last restarted at {last.time:%Y-%m-%d %H:%M:%S} UTC because "
                f"{last.reason}",
                style="yellow",
            )
    if searched is not None:
        echo_table(
            ["tier", "endpoint", ">shards", ">rows", ">hidden rows"],
            [
                (e.tier, e.name, e.shards, f"{e.rows:,}", f"{e.hidden_rows:,}")
                for e in searched.endpoints
                if e.ready
            ],
        )
        for line in other_model_lines(searched):
            echo(line)
        echo(coverage_line(searched.coverage), style=coverage_style(searched.coverage))
    if problem:
        echo(problem, style="red")


def _process_document(process: ProcessRow) -> dict[str, Any]:
    return {
        "name": process.name,
        "status": process.status,
        "detail": process.detail,
        "problems": process.problems,
        "pid": process.pid,
        "restarts": process.restarts,
        "last_restart": _restart_document(process.last_restart),
        "rss_bytes": process.rss_bytes,
        "peak_rss_bytes": process.peak_rss_bytes,
        "addresses": process.addresses,
    }


def _restart_document(last: Restart | None) -> dict[str, str] | None:
    if last is None:
        return None
    return {"reason": last.reason, "at": last.time.isoformat(timespec="seconds")}
