"""``shashin builds``: run IndexBuild documents, and list, show, retry and cancel their runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from shashin.builds.document import BUILT_TIERS
from shashin.builds.document_file import read_build_file
from shashin.builds.known_models import require_known_model
from shashin.builds.planning import PlannedBuilds, plan_builds
from shashin.builds.policy import Policy
from shashin.builds.recorded import FolderBuilds, RecordedBuilds
from shashin.builds.records import BuildRecord, BuildRecords
from shashin.builds.runner import RunOptions, cancel_build, remove_build, retry_build, run_build
from shashin.builds.status import BuildStatus
from shashin.cli.builds import objects
from shashin.cli.builds.following import ShownBuild, chosen_logs, follow_logs, print_logs
from shashin.cli.builds.view import (
    COLUMNS,
    FILE_COLUMNS,
    NO_WRAP_COLUMNS,
    STEP_COLUMNS,
    ending_text,
    file_rows,
    row_of,
    step_row,
    style_of,
    summary_document,
    unreadable_document,
    whole_document,
    whole_rows,
)
from shashin.cli.confirm import confirm
from shashin.cli.options import (
    DEFAULT_STATE,
    BuildsOption,
    JsonOption,
    KafkaOption,
    RepositoryOption,
    StateOption,
    YesOption,
)
from shashin.cli.snapshots import echo_renewed, old_snapshots
from shashin.cli.snapshots import renew_snapshots as renew_old_snapshots
from shashin.documents.parts import check_known
from shashin.errors import BuildFailed, BuildRunning, UserError
from shashin.local.given_settings import PHOTO_ROOTS
from shashin.local.log_file import last_lines, quoted
from shashin.local.plan import photo_roots
from shashin.local.system import System
from shashin.objectstore.open import opened_object_store
from shashin.repository.known_shards import known_models
from shashin.repository.repository import ModelRepository
from shashin.serving.snapshot_renewal import Renewed
from shashin.terminal.console import (
    Stages,
    command,
    echo,
    echo_error,
    echo_json,
    echo_table,
    relative_path,
)
from shashin.terminal.run import run

app = typer.Typer(
    no_args_is_help=True,
    help="Run IndexBuild documents, which make index shards, plan those that are due, and list, show, "
    "retry and cancel their runs.",
)

NameArgument = Annotated[str, typer.Argument(help="Name of the build.")]
FollowOption = Annotated[
    bool, typer.Option("--follow", "-f", help="Print what the steps print, as they print it.")
]

ModelOption = Annotated[
    str | None,
    typer.Option(
        envvar="SHASHIN_MODEL",
        help="Model of a re-index, as for `shashin up`: demo-v1, efficientnet-lite0, torchvision:NAME, repository:ID, or the "
        "path of a checkpoint.",
    ),
]

_SHOWN_FILES = 50


@app.command("run", epilog="Example:  shashin builds run daily.yaml --follow")
def run_file(
    file: Annotated[
        Path, typer.Argument(help="IndexBuild document, YAML or JSON.", metavar="FILE")
    ],
    *,
    follow: FollowOption = False,
    model: ModelOption = None,
    repository: RepositoryOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Run a build to its end; a build that was run before goes on where that is possible.

    Steps that succeeded are kept, unless their part of the document or their output has changed.
    Exits with 0 if the build succeeded, 1 if it failed or was cancelled, 2 for an invalid document.
    """
    system = System(state)
    build = read_build_file(file, now=datetime.now(UTC))
    uri = repository or system.repository
    record = BuildRecords(system.folder).record(build.name)

    async def run_it(options: RunOptions) -> BuildStatus:
        await require_known_model(build, uri)
        return await run_build(
            record,
            build,
            repository=uri,
            command_folder=file.absolute().parent,
            options=options,
        )

    _run_shown(record, run_it, follow=follow, state=state, model=model)


@app.command(epilog="Example:  shashin builds plan --run")
def plan(
    *,
    run_them: Annotated[
        bool, typer.Option("--run", help="Also run them, one after the other.")
    ] = False,
    follow: FollowOption = False,
    repository: RepositoryOption = None,
    state: StateOption = DEFAULT_STATE,
    fan_in: Annotated[
        int,
        typer.Option(
            min=2,
            help="Shards of a day that is not over, rewritten equally often, to merge at once.",
        ),
    ] = Policy.fan_in,
    day_limit: Annotated[
        int, typer.Option(min=1, help="Shards that a day that is not over has at most.")
    ] = Policy.day_limit,
    close_after: Annotated[
        float,
        typer.Option(
            min=0,
            max=366 * 86400,
            help="Seconds after its end at which a day or month counts as over.",
        ),
    ] = Policy.close_after_seconds,
    row_limit: Annotated[
        int, typer.Option(min=1, help="Rows that a built shard has at most.")
    ] = Policy.row_limit,
    tier: Annotated[
        str | None,
        typer.Option(help=f"Only builds that make shards of this tier: {', '.join(BUILT_TIERS)}."),
    ] = None,
    model_id: Annotated[
        str | None,
        typer.Option(
            envvar="SHASHIN_MODEL_ID",
            help="Only of this model; by default of all that the repository has.",
        ),
    ] = None,
    renew_snapshots: Annotated[
        bool | None,
        typer.Option(
            "--renew-snapshots/--no-renew-snapshots",
            help="Whether to renew old snapshots of hidden rows, of all models; by default with --run.",
        ),
    ] = None,
    snapshot_days: Annotated[
        float,
        typer.Option(
            min=0, help="Age in days at which the snapshot of a shard's hidden rows is renewed."
        ),
    ] = 7.0,
    kafka: KafkaOption = None,
    builds: BuildsOption = None,
) -> None:
    """Create the builds that are due: hourly shards into daily ones, and daily ones into monthly ones.

    Shards that stay get a new snapshot of their hidden rows once theirs is old, with --run. Run it
    every hour, for example by cron. Exits with 1 if a build that is due has failed, which is then to
    be retried, or if a snapshot cannot be renewed. With --builds, the controller runs what is created.
    """
    system = System(state)
    uri = repository or system.repository
    if tier is not None:
        check_known(tier, BUILT_TIERS, "a tier that a build can make")
    planning = _Planning(
        uri,
        Policy(fan_in, day_limit, close_after, row_limit),
        BUILT_TIERS if tier is None else (tier,),
        model_id,
    )
    if builds is None:
        failed = _plan_and_run(planning, state, run_them=run_them, follow=follow)
    elif run_them:
        raise UserError("--run: the controller runs builds of a namespace, so leave it out")
    else:
        failed = _planned(run(_plan_objects(planning, builds)))
    renewed = Renewed()
    if run_them if renew_snapshots is None else renew_snapshots:
        renewed = run(
            renew_old_snapshots(
                uri, lambda: kafka or system.kafka_address(), older_than_days=snapshot_days
            )
        )
        if renewed.hidden_rows or not renewed.whole:
            echo_renewed(renewed)
    elif old := run(_count_old_snapshots(uri, snapshot_days)):
        echo(
            f"snapshots of hidden rows older than {snapshot_days:g} days: {old}; --run renews them"
        )
    if failed:
        raise BuildFailed(
            f"{len(failed)} due builds have failed: `shashin builds retry NAME` goes on with "
            f"{', '.join(failed)}"
        )
    if not renewed.whole:
        raise typer.Exit(1)


async def _count_old_snapshots(uri: str, days: float) -> int:
    async with opened_object_store(uri) as store:
        return len(await old_snapshots(store, days))


@dataclass(frozen=True)
class _Planning:
    """What is planned, and how."""

    uri: str
    """Of the model repository."""
    policy: Policy
    tiers: Sequence[str]
    model_id: str | None
    """None for every model that the repository has."""

    async def plan(self, builds: RecordedBuilds) -> PlannedBuilds:
        """Create what is due."""
        found = PlannedBuilds()
        async with opened_object_store(self.uri) as store:
            repository = ModelRepository(store)
            models = await known_models(store) if self.model_id is None else [self.model_id]
            for model_id in models:
                planned = await plan_builds(
                    repository,
                    self.uri,
                    builds,
                    model_id,
                    datetime.now(UTC),
                    self.policy,
                    tiers=self.tiers,
                )
                found.created += planned.created
                found.pending += planned.pending
                found.unfinished += planned.unfinished
                found.unreadable += planned.unreadable
                found.left_out += planned.left_out
        return found


async def _plan_objects(planning: _Planning, uri: str) -> PlannedBuilds:
    async with objects.opened(uri) as builds:
        return await planning.plan(builds)


def _plan_and_run(planning: _Planning, state: Path, *, run_them: bool, follow: bool) -> list[str]:
    """Create what is due, and run it if asked to; returns the names of due builds that have failed or
    cannot be made.
    """
    records = BuildRecords(System(state).folder)
    while True:
        planned = run(planning.plan(FolderBuilds(records)))
        to_run = [records.record(name) for name in (*planned.created, *planned.pending)]
        if not run_them or not to_run:
            return _planned(planned)
        _echo_created(planned)
        _echo_unreadable(planned)
        # What is published may be due to be merged again, such as the last day of a month.
        if failed := [r.name for r in to_run if not _succeeds(r, follow=follow, state=state)]:
            return failed


def _planned(planned: PlannedBuilds) -> list[str]:
    """Print what was planned; returns the names of due builds that have failed or cannot be made."""
    _echo_created(planned)
    _echo_unreadable(planned)
    for one in planned.unfinished:
        echo_error(ending_text(one.build.name, one.status))
    not_done = [one.build.name for one in planned.unfinished] + planned.left_out
    if not planned.created and not planned.pending and not not_done:
        echo("nothing more is due")
    return not_done


def _echo_unreadable(planned: PlannedBuilds) -> None:
    for shard in planned.unreadable:
        echo_error(f"left out: the manifest of {shard.shard_id}: {shard.error.message}")
    for name in planned.left_out:
        echo_error(f"not created: {name} is due, and would merge what cannot be read")


def _echo_created(planned: PlannedBuilds) -> None:
    for name in planned.created:
        echo(f"created {name}")


def _succeeds(record: BuildRecord, *, follow: bool, state: Path) -> bool:
    try:
        _run_shown(record, partial(retry_build, record), follow=follow, state=state)
    except BuildRunning:
        echo(f"{record.name} is run by another process")
        return True
    except BuildFailed as error:
        echo_error(error.message)
        return False
    # As large as the shards that were merged, and published by now.
    record.delete_outputs()
    return True


@app.command(epilog="Example:  shashin builds retry demo-v1-daily-20261126")
def retry(
    name: NameArgument,
    *,
    follow: FollowOption = False,
    model: ModelOption = None,
    state: StateOption = DEFAULT_STATE,
    builds: BuildsOption = None,
) -> None:
    """Run a build again from the first step that did not succeed, or whose output has changed.

    With --builds, this asks the controller to, and does not wait for it.
    """
    if builds is not None:
        run(objects.retry(builds, name))
        return
    record = _record(name, state)
    _run_shown(
        record,
        lambda options: retry_build(record, options),
        follow=follow,
        state=state,
        model=model,
    )


def _run_shown(
    record: BuildRecord,
    run_it: Callable[[RunOptions], Coroutine[Any, Any, BuildStatus]],
    *,
    follow: bool,
    state: Path,
    model: str | None = None,
) -> None:
    with Stages(bars=not follow) as stages:
        shown = ShownBuild(record, stages, follow=follow)
        status = run(run_it(RunOptions(_environment(state, model), on_status=shown)))
    if status.phase == "Succeeded":
        echo(ending_text(record.name, status), style=style_of(status.phase))
        return
    raise BuildFailed(_failure(record, status, state))


def _environment(state: Path, model: str | None) -> dict[str, str]:
    """Return the environment of steps: ours, with the model and where published photos are."""
    environment = {**os.environ, PHOTO_ROOTS: photo_roots(System(state).folder, os.environ)}
    if model is not None:
        # Steps have another working directory.
        environment["SHASHIN_MODEL"] = (
            str(Path(model).absolute()) if Path(model).is_file() else model
        )
    return environment


def _failure(record: BuildRecord, status: BuildStatus, state: Path) -> str:
    at = () if state == DEFAULT_STATE else ("--state", state)
    again = f"`{command('builds', 'retry', record.name, *at)}` goes on from there"
    text = f"{ending_text(record.name, status)}; {again}"
    step = next((s for s in status.steps if s.phase == "Failed"), None)
    if step is None:
        return text
    log = record.log_path(step.name, step.attempt)
    return f"{text}; the last lines of {relative_path(log)}:{quoted(last_lines(log))}"


@app.command(epilog="Example:  shashin builds ls --json")
def ls(
    state: StateOption = DEFAULT_STATE, as_json: JsonOption = False, builds: BuildsOption = None
) -> None:
    """List all builds, oldest first."""
    if builds is not None:
        found, unreadable = run(objects.read_all(builds))
    else:
        found, unreadable = BuildRecords(System(state).folder).read_all()
    if as_json:
        echo_json(
            [
                *map(summary_document, found),
                *(unreadable_document(name, error) for name, error in unreadable.items()),
            ]
        )
        return
    if found:
        echo_table(COLUMNS, [row_of(one) for one in found], no_wrap=NO_WRAP_COLUMNS)
    elif not unreadable:
        echo("no builds yet: `shashin builds run FILE` runs one")
    for name, error in unreadable.items():
        echo(f"unreadable: {name}: {error.message}", style="red")


@app.command(epilog="Example:  shashin builds show demo-v1-daily-20261126")
def show(
    name: NameArgument,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
    builds: BuildsOption = None,
) -> None:
    """Show a build, its steps and their output files."""
    if builds is not None:
        recorded, rows = run(objects.read(builds, name)), []
    else:
        record = _record(name, state)
        recorded, rows = record.read(), [("record", relative_path(record.folder))]
    if as_json:
        echo_json(whole_document(recorded))
        return
    echo_table(["", name], [*whole_rows(recorded), *rows])
    echo_table(STEP_COLUMNS, [step_row(recorded.status, step) for step in recorded.status.steps])
    if files := file_rows(recorded.status):
        echo_table(FILE_COLUMNS, files[:_SHOWN_FILES])
        if len(files) > _SHOWN_FILES:
            echo(f"and {len(files) - _SHOWN_FILES:,} more files: --json has them all")


@app.command(epilog="Example:  shashin builds logs demo-v1-daily-20261126 embed")
def logs(
    name: NameArgument,
    step: Annotated[str | None, typer.Argument(help="Only this step.")] = None,
    *,
    attempt: Annotated[
        int | None,
        typer.Option(
            "--attempt", min=1, help="Only this attempt; by default each step's last one."
        ),
    ] = None,
    follow: FollowOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Print what the steps of a build printed."""
    record = _record(name, state)
    if follow and attempt is None and record.read().status.phase == "Running":
        run(follow_logs(record, step))
        return
    chosen = chosen_logs(record.logs(), name, step, attempt)
    print_logs(chosen, headings=step is None)


@app.command(epilog="Example:  shashin builds cancel demo-v1-daily-20261126")
def cancel(
    name: NameArgument, state: StateOption = DEFAULT_STATE, builds: BuildsOption = None
) -> None:
    """Stop a build, and wait until it has stopped; with --builds, ask the controller to stop it."""
    if builds is not None:
        run(objects.cancel(builds, name))
        return
    record = _record(name, state)
    before = record.read().status
    with Stages() as stages:
        stages.set(f"stopping {name}", note="" if before.pid is None else f"process {before.pid}")
        status = run(cancel_build(record)).status
        stages.finish(f"stopping {name}")
    nothing = "nothing to cancel: " if before.ended and status.phase != "Cancelled" else ""
    echo(f"{nothing}{ending_text(name, status)}")


@app.command(epilog="Example:  shashin builds rm demo-v1-daily-20261126")
def rm(
    name: NameArgument,
    state: StateOption = DEFAULT_STATE,
    yes: YesOption = False,
    builds: BuildsOption = None,
) -> None:
    """Delete a build's record, with its logs and the output of its steps; what it published stays."""
    if builds is not None:
        confirm(f"delete the IndexBuild {name}", yes=yes)
        run(objects.remove(builds, name))
        return
    record = _record(name, state)
    confirm(f"delete {relative_path(record.folder)}", yes=yes)
    run(remove_build(record))
    echo(f"removed build {name}")


def _record(name: str, state: Path) -> BuildRecord:
    record = BuildRecords(System(state).folder).record(name)
    record.require()
    return record
