"""The route of the live pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import FastAPI, Query
from fastapi.params import Depends

from services.router.active import ActiveModel
from services.router.rest.pipeline_document import pipeline_of
from services.router.rest.pipeline_schema import Pipeline
from services.router.rest.problems import responses


def add_pipeline(app: FastAPI, active: ActiveModel, dependencies: Sequence[Depends]) -> None:
    """Add the route; ``dependencies`` decide who may ask."""

    @app.get(
        "/v1/pipeline",
        summary="How far the stages of the pipeline are, and which shards are served",
        response_model=Pipeline,
        responses=responses(400, 401),
        dependencies=dependencies,
    )
    async def pipeline(
        since: Annotated[
            float,
            Query(
                allow_inf_nan=False,
                description="Only the history after this time, in Unix seconds: the `at` of an earlier answer.",
            ),
        ] = 0.0,
    ) -> Pipeline:
        model = active.current
        return pipeline_of(model.watch, model.space.model_id, since)
