"""``shashin load``: events, sales and queries at given rates, with a report of latencies."""

from __future__ import annotations

import json
import math
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from shashin.cli.load.page import report_page
from shashin.cli.load.photos import own_stock, rendered_stock
from shashin.cli.options import DEFAULT_STATE, KafkaOption, PhotosOption, RouterOption, StateOption
from shashin.cli.router_command import calls_router
from shashin.errors import UserError
from shashin.local.system import System
from shashin.terminal.console import Stages, echo, echo_stderr, echo_table, seconds
from shashin.terminal.run import run
from shashin.workload.load.drivers import EVENTS, QUERIES, SALES
from shashin.workload.load.rates import FORM, parse_duration, parse_schedule
from shashin.workload.load.report import report_document
from shashin.workload.load.run import LoadOptions, LoadRun, Target, check_target
from shashin.workload.load.stock import StockListing

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

_DEFAULT_SECONDS = 60.0


class By(StrEnum):
    """What queries search by."""

    PHOTO = "photo"
    VECTOR = "vector"
    LISTING = "listing"


class Arrival(StrEnum):
    """How requests are spread over time."""

    POISSON = "poisson"
    EVEN = "even"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog='Example:  shashin load --events 5/s --sales 2/s --queries "0..50/s over 30s, 50/s" --for 2m --html load.html',
    )(calls_router(load))


def load(
    *,
    events: Annotated[
        str | None, typer.Option(metavar="RATE", help=f"New listings: {FORM}.")
    ] = None,
    sales: Annotated[
        str | None, typer.Option(metavar="RATE", help="Sales of the run's own listings.")
    ] = None,
    query_rate: Annotated[
        str | None, typer.Option("--queries", metavar="RATE", help="Searches.")
    ] = None,
    length: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="DURATION",
            help="Length of the run; by default that of the longest schedule, or 60s.",
        ),
    ] = None,
    query_by: Annotated[
        list[By] | None, typer.Option(help="What queries search by; can be repeated.")
    ] = None,
    users: Annotated[
        int,
        typer.Option(
            help="Users who search, wait for the answer, and think: a closed loop instead of --queries.",
            min=0,
        ),
    ] = 0,
    think: Annotated[
        str, typer.Option(metavar="DURATION", help="How long users think, on average.")
    ] = "1s",
    listings: Annotated[
        int, typer.Option(help="Listings to publish first and search for.", min=0)
    ] = 20,
    photos: PhotosOption = None,
    photos_to: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|URI",
            help="Where to put photos so that the downloader may read them: a folder, or "
            "s3://BUCKET/PREFIX; by default that of published photos in the state folder.",
        ),
    ] = None,
    arrivals: Annotated[
        Arrival, typer.Option(help="Random arrivals, or evenly spaced ones.")
    ] = Arrival.POISSON,
    seed: Annotated[int, typer.Option(help="Seed of arrivals, photos and queries.")] = 1,
    clean: Annotated[
        bool, typer.Option("--clean/--no-clean", help="Sell the run's listings at the end.")
    ] = True,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write the report to this file as JSON.", dir_okay=False),
    ] = None,
    html_file: Annotated[
        Path | None,
        typer.Option("--html", help="Write the report to this file as a page.", dir_okay=False),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Embedder that makes the vectors of queries."),
    ] = None,
    kafka: KafkaOption = None,
    router: RouterOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Send events, sales and queries at given rates, and report latencies and errors.

    Requests are sent when they are due, whatever becomes of those before, and latencies count from
    when a request was due. Ctrl-C ends the run and reports what was done until then.
    """
    if query_rate is not None and users:
        raise UserError("--queries and --users both search: give one of them")
    given = {EVENTS: events, SALES: sales, QUERIES: query_rate}
    schedules = {kind: parse_schedule(text) for kind, text in given.items() if text is not None}
    if not schedules and not users:
        raise UserError("nothing to do: give --events, --sales, --queries or --users")
    if SALES in schedules and EVENTS not in schedules:
        raise UserError("--sales sells what --events publishes: give a rate of events, too")
    finite = [
        schedule.seconds for schedule in schedules.values() if math.isfinite(schedule.seconds)
    ]
    run_seconds = parse_duration(length) if length else max(finite, default=_DEFAULT_SECONDS)
    by = query_by or [By.PHOTO]
    options = LoadOptions(
        run=f"{datetime.now(UTC):%m%d%H%M%S}{secrets.token_hex(2)}",
        schedules=schedules,
        seconds=run_seconds,
        arrivals=arrivals.value,
        seed=seed,
        staying=listings,
        query_by=[one.value for one in by],
        users=users,
        think_seconds=parse_duration(think),
        clean=clean,
    )
    system = System(state)
    target = Target(
        kafka or system.kafka_address(),
        router or system.router_address(),
        embedder or (system.embedder_address() if By.VECTOR in by else None),
    )
    run(check_target(target))
    with Stages() as stages:
        stock = run(_stock(photos, photos_to, system.photos, seed, stages))
        load_run = LoadRun(options, target, stock, stages.set)
        run(load_run.play())
    document = report_document(
        load_run.recorder,
        {kind: schedule.requests for kind, schedule in schedules.items()},
        run=options.run,
        seconds=load_run.seconds,
        interrupted=load_run.interrupted,
        options={
            **{kind: text for kind, text in given.items() if text is not None},
            "for": run_seconds,
            "arrivals": arrivals.value,
            "query_by": [one.value for one in by],
            "users": users,
            "seed": seed,
            "kafka": target.kafka,
            "router": target.router,
        },
    )
    print_report(document)
    if clean:
        echo(f"{load_run.sold} listings of the run were sold")
    else:
        echo(f"the listings of the run stay: their ids begin with load-{options.run}-")
    if json_file is not None:
        json_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        echo_stderr(f"report written to {json_file}")
    if html_file is not None:
        html_file.write_text(report_page(document), encoding="utf-8")
        echo_stderr(f"report written to {html_file}")
    if load_run.interrupted:
        raise typer.Exit(INTERRUPTED)


async def _stock(
    photos: Path | None, photos_to: str | None, folder: Path, seed: int, stages: Stages
) -> list[StockListing]:
    if photos is not None:
        return await own_stock(photos, photos_to, folder, progress=stages.set)
    return await rendered_stock(photos_to, folder, seed=seed, progress=stages.set)


def print_report(document: dict[str, Any]) -> None:
    """Print the report as a table, and whether the generator kept up."""
    rows = []
    for name, kind in document["kinds"].items():
        failed = {what: n for what, n in kind["outcomes"].items() if what != "ok"}
        rows.append(
            (
                name,
                f"{kind['requests']:,}",
                "-" if kind["asked_rate"] is None else f"{kind['asked_rate']:.1f}/s",
                "-" if kind["done_rate"] is None else f"{kind['done_rate']:.1f}/s",
                *(seconds(kind[p]) for p in ("p50", "p90", "p99", "p99.9", "max")),
                ", ".join(f"{n} {what}" for what, n in failed.items()) or "none",
            )
        )
    if document["interrupted"]:
        echo(f"interrupted after {document['seconds']:.1f} s", style="yellow")
    echo_table(
        ["", ">requests", ">asked", ">done", ">p50", ">p90", ">p99", ">p99.9", ">max", "failed"],
        rows,
    )
    generator = document["generator"]
    echo(generator["note"], style="dim" if generator["kept_up"] else "bold red")
