"""``shashin indexes history``, ``rollback`` and ``prune``: what was served, back to it, and tidying up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Any

import typer

from shashin.builds.records import BuildRecords
from shashin.cli.builds import objects
from shashin.cli.confirm import confirm
from shashin.cli.options import (
    DEFAULT_STATE,
    BuildsOption,
    JsonOption,
    RepositoryOption,
    StateOption,
    YesOption,
)
from shashin.discovery.open import open_discovery
from shashin.errors import ServersUnknown, UnreadableBuild, UserError
from shashin.local.processes import discovery_path
from shashin.local.system import System
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import ObjectStore
from shashin.repository.known_shards import known_models, served_shards
from shashin.repository.pointer import Pointer
from shashin.repository.pruning import InUse, Pruning, ReadBuckets, plan_pruning, prune
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.serving.index_servers import IndexServers
from shashin.terminal.console import Stages, echo, echo_json, echo_table, megabytes
from shashin.terminal.run import run
from shashin.tiers import HOURLY, SEALED_TIERS

_SHOWN = 20

DiscoveryOption = Annotated[
    str | None,
    typer.Option(
        "--discovery",
        envvar="SHASHIN_DISCOVERY",
        metavar="URI",
        help="Where index servers are found; by default those of the state folder.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``shashin indexes``."""
    app.command("history", epilog="Example:  shashin indexes history daily")(history)
    app.command("rollback", epilog="Example:  shashin indexes rollback daily.p0000-p0003")(rollback)
    app.command("prune", epilog="Example:  shashin indexes prune --keep-days 7 --yes")(
        prune_command
    )


def history(
    tier: Annotated[str, typer.Argument(help=f"One of {', '.join(SEALED_TIERS)}.")] = HOURLY,
    repository: RepositoryOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Show what a tier served when: the shards that came and went, newest first."""
    if tier not in SEALED_TIERS:
        raise UserError(f"{tier!r} is no sealed tier: expected one of {', '.join(SEALED_TIERS)}")
    found = run(_history(repository or System(state).repository, tier))
    if as_json:
        echo_json(found)
        return
    if not found:
        echo(f"the {tier} tier has served nothing yet")
        return
    echo_table(
        ["at", "model", ">shards", ">rows", "added", "removed"],
        [
            (
                _time(one["at"]),
                one["model_id"],
                one["shards"],
                f"{one['rows']:,}",
                _named(one["added"]),
                _named(one["removed"]),
            )
            for one in found
        ],
    )


async def _history(uri: str, tier: str) -> list[dict[str, Any]]:
    found = []
    async with opened_object_store(uri) as store:
        repository = ModelRepository(store)
        for model_id in await known_models(store):
            before = (0.0, Pointer(model_id, tier, ()))
            for (_, old), (at, new) in pairwise(
                [before, *await repository.history(model_id, tier)]
            ):
                earlier = {shard.shard_id for shard in old.shards}
                later = {shard.shard_id for shard in new.shards}
                found.append(
                    {
                        "at": at,
                        "model_id": model_id,
                        "shards": len(later),
                        "rows": sum(shard.rows for shard in new.shards),
                        "added": sorted(later - earlier),
                        "removed": sorted(earlier - later),
                    }
                )
    return sorted(found, key=lambda one: -one["at"])


def rollback(
    shard: Annotated[str, typer.Argument(help="ID of a built shard, or a unique part of it.")],
    repository: RepositoryOption = None,
    state: StateOption = DEFAULT_STATE,
    yes: YesOption = False,
) -> None:
    """Serve the parents of a built shard again in its place, without a gap.

    The image builder lets their tier serve them, and deletes the shard once index servers have them.
    The parents have to be in the repository still: `prune` keeps them for --keep-days. The build is
    not repeated by itself: remove its record with `shashin builds rm`, and plan again.
    """
    run(_rollback(repository or System(state).repository, shard, yes=yes))


async def _rollback(uri: str, id_part: str, *, yes: bool) -> None:
    async with opened_object_store(uri) as store:
        repository = ModelRepository(store)
        served: list[StoredShard] = []
        for model_id in await known_models(store):
            served += await served_shards(repository, model_id)
        manifest = find_shard(id_part, served).manifest
        if not manifest.parents:
            raise UserError(
                f"{manifest.shard_id} was sealed by an indexer, not built: there is nothing to go back "
                "to"
            )
        own = tuple(f"{manifest.model_id}.{tier}." for tier in SEALED_TIERS)
        if not all(parent.startswith(own) for parent in manifest.parents):
            raise UserError(
                f"{manifest.shard_id} was re-indexed from shards of another model, so {manifest.model_id} "
                "has nothing to go back to: `shashin model activate` switches to the other model"
            )
        confirm(f"serve {len(manifest.parents)} shards in place of {manifest.shard_id}", yes=yes)
        await repository.reject(manifest)
    echo(
        f"{manifest.shard_id} is rejected: its {len(manifest.parents)} parents are served again, then "
        "it is deleted"
    )


def prune_command(
    keep_days: Annotated[
        float,
        typer.Option(
            min=0, help="Days for which a shard, and what it was built from, stay for a rollback."
        ),
    ] = 7.0,
    repository: RepositoryOption = None,
    discovery: DiscoveryOption = None,
    state: StateOption = DEFAULT_STATE,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only show what.")] = False,
    as_json: JsonOption = False,
    builds: BuildsOption = None,
) -> None:
    """Delete shards that nothing serves or needs, and leftovers of uploads; by default only show them.

    It never deletes what a pointer names, what an index server holds, what an unfinished build reads,
    or what no served shard contains.
    """
    system = System(state)
    servers = discovery or (
        discovery_path(system.folder).as_uri() if discovery_path(system.folder).exists() else None
    )
    if servers is None:
        raise UserError(
            "it is not known where index servers are, and so not what they hold: give --discovery"
        )
    planned = run(
        _prune(
            repository or system.repository,
            servers,
            _Builds(BuildRecords(system.folder), builds),
            time.time() - keep_days * 86400,
            delete=yes,
        )
    )
    _echo_pruning(planned, deleted=yes, as_json=as_json)


@dataclass(frozen=True)
class _Builds:
    """The builds that may still read shards."""

    records: BuildRecords
    uri: str | None
    """Of a namespace with IndexBuilds, if there is one."""

    async def in_use(self) -> InUse:
        """Return the shards that unfinished builds may read.

        Raises:
            UnreadableBuild: if a build cannot be read: it may read any shard.
        """
        recorded, unreadable = self.records.read_all()
        if self.uri is not None:
            objects_found, objects_unreadable = await objects.read_all(self.uri)
            recorded += objects_found
            unreadable |= objects_unreadable
        if unreadable:
            raise UnreadableBuild(
                f"builds cannot be read, nor which shards they need: nothing is deleted: "
                f"{'; '.join(f'{name}: {error.message}' for name, error in unreadable.items())}"
            )
        specs = [
            one.build.spec for one in recorded if one.status.phase not in {"Succeeded", "Cancelled"}
        ]
        return InUse(
            needed={parent for spec in specs for parent in spec.source.shards or ()},
            needed_buckets=[
                ReadBuckets(
                    spec.source.reindex.from_model,
                    spec.window.start.timestamp(),
                    spec.window.end.timestamp(),
                )
                for spec in specs
                if spec.source.reindex is not None
            ],
        )


async def _prune(
    uri: str, discovery_uri: str, builds: _Builds, before: float, *, delete: bool
) -> Pruning:
    in_use = await builds.in_use()
    found = Pruning()
    async with opened_object_store(uri) as store:
        for model_id in await known_models(store):
            planned = await plan_pruning(
                store,
                model_id,
                replace(in_use, held=await _held(discovery_uri, model_id)),
                committed_before=before,
            )
            found.objects += planned.objects
            found.shards += planned.shards
            found.kept |= planned.kept
        if delete:
            await _delete(store, found)
    return found


async def _held(discovery_uri: str, model_id: str) -> set[str]:
    """Return what index servers hold.

    Raises:
        ServersUnknown: when one of them does not respond: it may hold any shard.
    """
    discovery = open_discovery(discovery_uri)
    servers = IndexServers(discovery, model_id)
    try:
        held = await servers.held()
        if servers.silent:
            raise ServersUnknown(
                f"index servers do not respond: {', '.join(servers.silent)}: nothing is deleted, since "
                "it is not known what they hold"
            )
        return {shard.shard_id for shard in held}
    finally:
        await servers.close()
        await discovery.close()


async def _delete(store: ObjectStore, pruning: Pruning) -> None:
    with Stages() as stages:

        def show(done: int) -> None:
            stages.set("objects deleted", done, len(pruning.objects))

        await prune(store, pruning, on_progress=show)


def _echo_pruning(pruning: Pruning, *, deleted: bool, as_json: bool) -> None:
    if as_json:
        echo_json(
            {
                "deleted": deleted,
                "shards": pruning.shards,
                "objects": [info.key for info in pruning.objects],
                "bytes": pruning.size,
                "kept": pruning.kept,
            }
        )
        return
    for shard_id in pruning.shards[:_SHOWN]:
        echo(shard_id)
    if len(pruning.shards) > _SHOWN:
        echo(f"and {len(pruning.shards) - _SHOWN:,} more shards: --json has them all")
    for shard_id, reason in list(pruning.kept.items())[:_SHOWN]:
        echo(f"kept: {shard_id}: {reason}", style="yellow")
    what = f"{len(pruning.shards):,} shards, {len(pruning.objects):,} objects"
    if deleted:
        echo(f"deleted {what}, {megabytes(pruning.size)}", style="green")
    else:
        echo(f"{what}, {megabytes(pruning.size)} may be deleted: --yes deletes them")


def find_shard(id_part: str, shards: Sequence[StoredShard]) -> StoredShard:
    """Return the only shard whose id is, or contains, ``id_part``.

    Raises:
        UserError: if no shard or several shards match.
    """
    found = [s for s in shards if s.manifest.shard_id == id_part]
    found = found or [s for s in shards if id_part in s.manifest.shard_id]
    if len(found) != 1:
        raise UserError(
            f"{len(found)} shard ids match {id_part!r}; expected exactly one: "
            "`shashin indexes ls` lists all shards"
        )
    return found[0]


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _named(shard_ids: Sequence[str]) -> str:
    shown = [shard_id.partition(".")[2] for shard_id in shard_ids[:2]]
    more = f" and {len(shard_ids) - 2} more" if len(shard_ids) > 2 else ""
    return ", ".join(shown) + more
