"""The route of the newest listings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import FastAPI, Query
from fastapi.params import Depends

from services.router.active import ActiveModel
from services.router.costs import cost_of_newest
from services.router.gate import Gate
from services.router.rest import schema
from services.router.rest.convert import newest_of
from services.router.rest.problems import responses
from shashin.codecs.limits import MAX_NEWEST

_LIMIT = 24


def add_newest(
    app: FastAPI, active: ActiveModel, gate: Gate, *, dependencies: Sequence[Depends]
) -> None:
    """Add the route, which is let in by ``dependencies``."""

    @app.get(
        "/v1/listings/newest",
        summary="The listings that were listed last",
        response_model=schema.NewestAnswer,
        responses=responses(400, 401, 429, 503, 504),
        dependencies=dependencies,
    )
    async def newest(
        limit: Annotated[int, Query(ge=1, le=MAX_NEWEST)] = _LIMIT,
    ) -> schema.NewestAnswer:
        with gate.admitted("newest", cost_of_newest(limit), None), active.in_use() as model:
            return newest_of(await model.newest.newest(limit), model.space.model_id)
