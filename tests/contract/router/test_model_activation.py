"""Activating a model: only one that has everything, unless it is forced."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from shashin.cli.active_model import _activate, _listed
from shashin.errors import UserError
from shashin.model_space import ModelSpace
from shashin.objectstore.file import FileObjectStore
from shashin.offsets.answer_coverage import AnswerCoverage
from shashin.offsets.coverage import LiveReport, Position, StageLag
from shashin.offsets.ranges import OffsetRange
from shashin.repository.active_model import ActiveModels
from shashin.repository.horizons import Horizons
from shashin.serving.model_state import ModelState
from tests.support.running_router import (
    DIMENSIONS,
    MODEL,
    FakeEmbedder,
    Listing,
    System,
    shard_of,
)

OTHER = "other-model"
WHOLE = ModelState(AnswerCoverage((), (), 2), frozenset({16}), 2, (), 1)


@pytest.fixture
async def store(tmp_path: Path) -> FileObjectStore:
    """A repository in which the first model is active, from offset 0 on."""
    store = FileObjectStore(tmp_path / "repository")
    await ActiveModels(store).activate_first(ModelSpace(MODEL, DIMENSIONS), at=1.0)
    await Horizons(store, MODEL).keep(0, 0)
    return store


async def activate(system: System, model_id: str, *, force: bool = False) -> str:
    repository = (system.folder / "repository").as_uri()
    discovery = (system.folder / "discovery.json").as_uri()
    return (await _activate(model_id, repository, discovery, force=force)).model


async def start_other(system: System, *, first: int) -> None:
    """Start the second model, whose indexer has read from an offset on."""
    report = LiveReport({0: Position(0, first + 2)}, 1, stages=(StageLag("embedder", 3, 0.5),))
    shard = shard_of([Listing("x"), Listing("y")], from_offset=first)
    await system.index("other", "live", shard, model_id=OTHER, announced_model=OTHER, report=report)
    await system.embedder("embedder", FakeEmbedder(model_id=OTHER), announced_model=OTHER)


async def test_a_model_with_everything_is_activated_and_the_first_one_again(
    system: System, store: FileObjectStore
) -> None:
    await start_other(system, first=0)
    assert await activate(system, OTHER) == OTHER
    found = await ActiveModels(store).read()
    assert found is not None
    assert (found.space, found.previous) == (ModelSpace(OTHER, DIMENSIONS), MODEL)
    await system.index("mine", "live", shard_of([Listing("x")]), announced_model=MODEL)
    await system.embedder("my-embedder", FakeEmbedder(), announced_model=MODEL)
    assert await activate(system, MODEL, force=True) == MODEL


async def test_a_model_that_lacks_something_is_refused_by_naming_it(
    system: System, store: FileObjectStore
) -> None:
    await start_other(system, first=40)
    with pytest.raises(UserError, match=r"it lacks 40 offsets of the log, .*: 0:\[0, 40\)"):
        await activate(system, OTHER)
    active = await ActiveModels(store).read()
    assert active is not None
    assert active.model == MODEL
    assert await activate(system, OTHER, force=True) == OTHER


async def test_a_model_whose_horizon_is_above_that_of_the_active_one_lacks_what_is_between(
    system: System, store: FileObjectStore
) -> None:
    shard = shard_of([Listing("x")], from_offset=7)
    report = LiveReport({0: Position(7, 8)}, 1)
    await system.index("other", "live", shard, model_id=OTHER, report=report)
    await system.embedder("embedder", FakeEmbedder(model_id=OTHER))
    with pytest.raises(UserError, match=r"0:\[0, 7\)"):
        await activate(system, OTHER)
    await Horizons(store, MODEL).raise_to({0: 7})
    assert await activate(system, OTHER) == OTHER


async def test_what_the_active_model_took_out_of_service_is_not_required(
    system: System, store: FileObjectStore
) -> None:
    await Horizons(store, OTHER).keep(0, 0, 40)
    await Horizons(store, MODEL).raise_to({0: 40})
    await start_other(system, first=40)
    assert await activate(system, OTHER) == OTHER
    raised = await Horizons(store, OTHER).read(0)
    assert raised is not None
    assert (raised.offset, raised.live_from) == (40, 40)


async def test_a_model_of_which_nothing_is_known_is_refused_even_if_forced(
    system: System, store: FileObjectStore
) -> None:
    with pytest.raises(UserError, match="no index endpoint serves it; no embedder of it is ready"):
        await activate(system, "unknown")
    with pytest.raises(UserError, match="nothing is known of unknown"):
        await activate(system, "unknown", force=True)
    assert await ActiveModels(store).read() is not None


async def test_models_are_listed_with_what_they_lack(
    system: System, store: FileObjectStore
) -> None:
    await Horizons(store, OTHER).keep(0, 0, 40)
    await start_other(system, first=40)
    listed = await _listed(
        (system.folder / "repository").as_uri(), (system.folder / "discovery.json").as_uri()
    )
    documents = {model.model_id: model.document() for model in listed}
    assert (documents[MODEL]["active"], documents[OTHER]["active"]) == (True, False)
    assert documents[OTHER]["missing"] == ["0:[0, 40)"]
    assert not documents[OTHER]["complete"]


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (replace(WHOLE, endpoints=0), "no index endpoint"),
        (replace(WHOLE, embedders=0), "no embedder"),
        (replace(WHOLE, not_serving=("a: replaying",)), "a: replaying"),
        (replace(WHOLE, dimensions=frozenset({16, 8})), r"\[8, 16\] dimensions"),
        (replace(WHOLE, coverage=AnswerCoverage((), (1,), 2)), "reports partition 1"),
        (replace(WHOLE, coverage=AnswerCoverage((), (), 0)), "no indexer reports a partition"),
        (
            replace(WHOLE, coverage=AnswerCoverage((OffsetRange(1, 2, 5),), (), 2)),
            r"lacks 3 offsets .*1:\[2, 5\)",
        ),
        (
            replace(
                WHOLE, coverage=AnswerCoverage((), (), 2, (StageLag("embedder", 90_000, 300.0),))
            ),
            "its embedder is 90000 records behind, for 300 s",
        ),
        (
            replace(WHOLE, coverage=AnswerCoverage((), (), 2, (StageLag("embedder", None),))),
            "unknown how far its embedder is behind",
        ),
    ],
)
def test_what_keeps_a_model_from_taking_over_is_named(state: ModelState, problem: str) -> None:
    assert not WHOLE.problems()
    (found,) = state.problems()
    assert re.search(problem, found)


def test_a_downloader_that_is_behind_keeps_no_model_from_taking_over() -> None:
    behind = AnswerCoverage((), (), 2, (StageLag("downloader", 90_000, 300.0),))
    assert not replace(WHOLE, coverage=behind).problems()
