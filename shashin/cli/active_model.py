"""``shashin model ls`` and ``activate``: which models there are, and which one searches use."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from shashin.cli.options import DEFAULT_STATE, JsonOption, RepositoryOption, StateOption
from shashin.discovery.open import open_discovery, set_active_model
from shashin.errors import ShashinError, UserError
from shashin.local.system import System
from shashin.model_space import ModelSpace, check_model_id
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import ObjectStore
from shashin.repository.active_model import ActiveModel, ActiveModels
from shashin.repository.horizons import Horizons
from shashin.repository.known_shards import known_models, served_shards
from shashin.repository.repository import ModelRepository
from shashin.serving.model_state import ModelState, model_state
from shashin.terminal.console import command, echo, echo_json, echo_stderr, echo_table
from shashin.terminal.run import run

DiscoveryOption = Annotated[
    str | None,
    typer.Option(
        "--discovery",
        envvar="SHASHIN_DISCOVERY",
        metavar="URI",
        help="Use this list of endpoints instead of that of the state folder.",
    ),
]


@dataclass(frozen=True)
class ListedModel:
    """A model of a repository."""

    model_id: str
    dimensions: int | None
    """None if it has no shard."""
    shards: int
    rows: int
    active: bool
    state: ModelState | None
    """None if discovery does not respond."""

    @property
    def problems(self) -> list[str]:
        """Why it could not take over; empty if it could."""
        return ["discovery does not respond"] if self.state is None else self.state.problems()

    def document(self) -> dict[str, Any]:
        """Return this for JSON output."""
        return {
            "model": self.model_id,
            "dimensions": self.dimensions,
            "active": self.active,
            "shards": self.shards,
            "rows": self.rows,
            "complete": self.state is not None and self.state.coverage.complete,
            "missing": [] if self.state is None else [str(r) for r in self.state.coverage.missing],
            "problems": self.problems,
        }


def ls(
    *,
    repository: RepositoryOption = None,
    discovery: DiscoveryOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """List the models of the repository, with what they serve and whether they could take over."""
    system = System(state)
    models = run(_listed(repository or system.repository, discovery or system.discovery))
    if as_json:
        echo_json([model.document() for model in models])
        return
    if not models:
        echo("no model has been started yet: `shashin up` starts one")
        return
    echo_table(
        ["model", "active", ">dimensions", ">shards", ">rows", "coverage"],
        [
            (
                model.model_id,
                "active" if model.active else "",
                "-" if model.dimensions is None else model.dimensions,
                model.shards,
                f"{model.rows:,}",
                "; ".join(model.problems) or "complete",
            )
            for model in models
        ],
    )


def activate(
    model: Annotated[str, typer.Argument(help="ID of the model, as `shashin model ls` has it.")],
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Activate it even if searches would find less.")
    ] = False,
    repository: RepositoryOption = None,
    discovery: DiscoveryOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Let searches use a model: routers follow without a restart. The same command switches back.

    Refuses a model that does not have all listings yet, and names what it lacks.
    """
    check_model_id(model)
    system = System(state)
    found = run(
        _activate(
            model,
            repository or system.repository,
            discovery or system.discovery,
            force=force,
        )
    )
    before = f", instead of {found.previous}" if found.previous else ""
    echo(f"{found.space} is active{before}", style="green")
    if found.previous:
        echo(f"back:  {command('model', 'activate', found.previous)}")


async def _activate(model_id: str, uri: str, discovery_uri: str, *, force: bool) -> ActiveModel:
    async with opened_object_store(uri) as store:
        active = await ActiveModels(store).read()
        horizons = {} if active is None else await _horizons(store, active.model)
        found = await _state(discovery_uri, model_id, horizons)
        if problems := found.problems():
            if not force:
                raise UserError(
                    f"{model_id} cannot take over yet: {'; '.join(problems)}; --force activates it "
                    "nevertheless"
                )
            echo_stderr(f"activated nevertheless: {'; '.join(problems)}", style="yellow")
        space = ModelSpace(model_id, await _dimensions(store, model_id, found))
        # What the active model has taken out of service since then is not required any more.
        own = await _horizons(store, model_id)
        await Horizons(store, model_id).raise_to(
            {p: offset for p, offset in horizons.items() if p in own and own[p] < offset}
        )
        now_active = await ActiveModels(store).activate(space, at=time.time())
        await _tell_routers(discovery_uri, now_active.space)
        return now_active


async def _tell_routers(discovery_uri: str, space: ModelSpace) -> None:
    try:
        await set_active_model(discovery_uri, space)
    except ShashinError as error:
        raise type(error)(
            f"{space} is active in the model repository, but routers do not know yet: {error.message}; "
            "run the command again"
        ) from error


async def _dimensions(store: ObjectStore, model_id: str, found: ModelState) -> int:
    if len(found.dimensions) == 1:
        return next(iter(found.dimensions))
    for stored in await served_shards(ModelRepository(store), model_id):
        return stored.manifest.dimensions
    raise UserError(
        f"nothing is known of {model_id}: expected an endpoint or a shard of it, see "
        f"`{command('model', 'ls')}`"
    )


async def _listed(uri: str, discovery_uri: str) -> list[ListedModel]:
    async with opened_object_store(uri) as store:
        active = await ActiveModels(store).read()
        names = {*await known_models(store), *([active.model] if active else [])}
        horizons = {} if active is None else await _horizons(store, active.model)
        listed = []
        for model_id in sorted(names):
            shards = [s.manifest for s in await served_shards(ModelRepository(store), model_id)]
            found: ModelState | None = None
            try:
                found = await _state(discovery_uri, model_id, horizons)
            except UserError:
                raise
            except ShashinError as error:
                echo_stderr(error.message, style="yellow")
            listed.append(
                ListedModel(
                    model_id,
                    shards[0].dimensions if shards else None,
                    len(shards),
                    sum(manifest.rows for manifest in shards),
                    active is not None and active.model == model_id,
                    found,
                )
            )
        return listed


async def _state(discovery_uri: str, model_id: str, horizons: dict[int, int]) -> ModelState:
    discovery = open_discovery(discovery_uri)
    try:
        return await model_state(discovery, model_id, horizons)
    finally:
        await discovery.close()


async def _horizons(store: ObjectStore, model_id: str) -> dict[int, int]:
    return {found.partition: found.offset for found in await Horizons(store, model_id).all()}
