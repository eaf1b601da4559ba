"""IndexBuild documents: what to build, of what, and by which steps.

A document is the same on one machine and on Kubernetes, where it is a custom resource: its keys are
camelCase, and ``IndexBuild.model_json_schema()`` is its schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from shashin.documents.parsing import FieldPath, located, parse_document
from shashin.documents.parts import (
    API_VERSION,
    NAME_PATTERN,
    Labels,
    ModelId,
    ModelPart,
    Part,
    Text,
    check_known,
    check_name,
    check_shards_of,
    checked,
    repeated,
    same_as_before,
    validated,
    validation,
)
from shashin.documents.suggestions import suggestion
from shashin.errors import UserError
from shashin.shards.kinds.names import kind_names
from shashin.tiers import DAILY, HOURLY, MONTHLY

KIND: Final = "IndexBuild"

SELECT, FETCH, EMBED, BUILD, PUBLISH = "select", "fetch", "embed", "build", "publish"
BUILT_IN_STEPS = (SELECT, FETCH, EMBED, BUILD, PUBLISH)
"""The steps that every pipeline has, in this order."""

BUILT_TIERS = (HOURLY, DAILY, MONTHLY)
"""The tiers whose shards a build can make."""


def check_build_name(name: str) -> None:
    """Check that a name can be that of a build, a folder and a Kubernetes object.

    Raises:
        UserError: if it cannot.
    """
    check_name(name, "build")


def _check_kind(kind: str) -> None:
    # Not by index_kind(), which imports the kind's library.
    check_known(kind, kind_names(), "an index kind")


def _check_tier(tier: str) -> None:
    check_known(tier, BUILT_TIERS, "a tier that a build can make")


def _check_second(text: datetime) -> datetime:
    if text.utcoffset() != timedelta(0):
        raise ValueError("expected a time in UTC, such as 2026-11-26T00:00:00Z")
    if text.microsecond:
        raise ValueError(
            "expected a full second, such as 2026-11-26T13:00:00Z: buckets begin at one"
        )
    return text.astimezone(UTC)


def _require_text(value: object) -> object:
    # pydantic would take a number for Unix seconds.
    if not isinstance(value, str | datetime):
        raise ValueError(f"expected a time such as 2026-11-26T00:00:00Z, found {value!r}")  # noqa: TRY004 - pydantic reports only ValueErrors
    return value


ShardId = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=512)]
BuildName = Annotated[str, StringConstraints(strict=True), checked(check_build_name)]
StepName = Annotated[
    str,
    StringConstraints(strict=True),
    Field(json_schema_extra={"maxLength": 63, "pattern": f"^{NAME_PATTERN}$"}),
    checked(lambda name: check_name(name, "step")),
]
Second = Annotated[datetime, BeforeValidator(_require_text), AfterValidator(_check_second)]


class Metadata(Part):
    """The build's name and labels."""

    name: BuildName
    """Unique in a state folder or namespace."""
    labels: Labels = Field(default_factory=dict)


class Window(Part):
    """The buckets that are built: from ``start`` up to, not including, ``end``."""

    model_config = validation("self.end > self.start", "end must be after start")

    start: Second
    """In UTC, such as 2026-11-26T00:00:00Z."""
    end: Second
    """In UTC; over by now, unless photos are embedded again."""

    @model_validator(mode="after")
    def _has_time(self) -> Window:
        if self.end <= self.start:
            raise ValueError(
                f"it ends at {_time(self.end)} and starts at {_time(self.start)}: expected an end "
                "after the start"
            )
        return self


class Reindex(Part):
    """The photos of another model's shards are embedded again."""

    from_model: ModelId
    """The model whose shards name the photos."""


class Source(Part):
    """Where the vectors come from: exactly one of these."""

    model_config = validation(
        "has(self.shards) != has(self.reindex)", "exactly one of shards and reindex is required"
    )

    shards: Annotated[tuple[ShardId, ...], Field(min_length=1, max_length=10_000)] | None = None
    """Ids of the shards to merge, from their stored vectors."""
    reindex: Reindex | None = None
    """The photos of another model's shards are embedded again."""

    @model_validator(mode="after")
    def _is_one(self) -> Source:
        if (self.shards is None) == (self.reindex is None):
            raise ValueError("expected exactly one of shards and reindex")
        if self.shards is not None and (twice := repeated(self.shards)):
            raise ValueError(f"shard {twice!r} is listed more than once")
        return self


class Index(Part):
    """How the shards are indexed."""

    kind: Annotated[
        str,
        StringConstraints(strict=True),
        Field(json_schema_extra={"enum": sorted(kind_names())}),
        checked(_check_kind),
    ]
    """The kind of index."""


class PipelineStep(Part):
    """A built-in step, by its name alone, or a step of the user's own, with its command."""

    model_config = validation(
        f"has(self.command) != (self.name in {list(BUILT_IN_STEPS)})",
        f"{', '.join(BUILT_IN_STEPS)} are built in and have no command; every other step needs one",
    )

    name: StepName
    """Unique in the pipeline."""
    command: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """Program and arguments of a step that is not built in."""
    image: Text | None = None
    """The container image of the command; only used on Kubernetes."""
    timeout_seconds: Annotated[int, Field(strict=True, ge=1)] | None = None
    """Seconds after which the step is ended and has failed; by default, it may take any time."""

    @property
    def built_in(self) -> bool:
        """Whether it is one of ``BUILT_IN_STEPS``."""
        return self.command is None

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> PipelineStep:
        known = self.name in BUILT_IN_STEPS
        if known and self.command is not None:
            raise ValueError(
                f"{self.name!r} is a built-in step and has no command of its own: give the step of "
                "this command another name"
            )
        if not known and self.command is None:
            raise ValueError(
                f"{self.name!r} is not a built-in step and has no command"
                f"{suggestion(self.name, BUILT_IN_STEPS)}"
            )
        if self.image is not None and self.command is None:
            raise ValueError("an image is only for a step with a command")
        return self


_COMPLETE = validated(
    f"{list(BUILT_IN_STEPS)}.all(name, self.exists_one(step, step.name == name))",
    f"every pipeline has {', '.join(BUILT_IN_STEPS)}, in this order",
)


def _default_pipeline() -> tuple[PipelineStep, ...]:
    return tuple(PipelineStep(name=name) for name in BUILT_IN_STEPS)


class Spec(ModelPart):
    """What is built."""

    tier: Annotated[
        str,
        Field(strict=True, json_schema_extra={"enum": list(BUILT_TIERS)}),
        checked(_check_tier),
        same_as_before("tier"),
    ]
    """The tier of the shards that are made."""
    window: Annotated[Window, same_as_before("window")]
    source: Annotated[Source, same_as_before("source")]
    index: Index | None = None
    """How the shards are indexed; by default, as the build step does it."""
    minimum_recall: Annotated[float, Field(ge=0, le=1)] = 0.98
    """A shard is not published if its measured recall@10 is lower."""
    pipeline: Annotated[tuple[PipelineStep, ...], Field(max_length=50), _COMPLETE] = Field(
        default_factory=_default_pipeline
    )
    """The steps, which run in this order: the built-in ones, and others between them."""

    @field_validator("pipeline")
    @classmethod
    def _steps_are_complete_and_in_order(
        cls, pipeline: tuple[PipelineStep, ...], _info: ValidationInfo
    ) -> tuple[PipelineStep, ...]:
        names = [step.name for step in pipeline]
        if twice := repeated(names):
            raise ValueError(f"step {twice!r} is listed more than once")
        found = [name for name in names if name in BUILT_IN_STEPS]
        expected = ", ".join(BUILT_IN_STEPS)
        if missing := [name for name in BUILT_IN_STEPS if name not in found]:
            raise ValueError(
                f"without {' and '.join(map(repr, missing))}: every pipeline needs {expected}, in "
                "this order"
            )
        if tuple(found) != BUILT_IN_STEPS:
            raise ValueError(
                f"the built-in steps are in the order {', '.join(found)}: expected {expected}"
            )
        return pipeline

    @model_validator(mode="after")
    def _source_suits_the_model(self) -> Spec:
        check_shards_of(self.model, self.source.shards or (), "source.shards")
        if self.source.reindex is not None and self.source.reindex.from_model == self.model:
            raise ValueError(
                f"source.reindex.fromModel is the model itself, {self.model}: expected another one"
            )
        return self


class IndexBuild(Part):
    """One run that makes the shards of a model's tier for a window of time."""

    api_version: Literal["shashin.dev/v1alpha1"] = API_VERSION
    kind: Literal["IndexBuild"] = KIND
    metadata: Metadata
    spec: Spec

    @property
    def name(self) -> str:
        """The build's name."""
        return self.metadata.name

    def document(self) -> dict[str, Any]:
        """Return this for JSON or YAML, with the defaults that a document may leave out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_json(self) -> bytes:
        """Return the document as it is stored, and given to steps."""
        return (json.dumps(self.document(), indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, *, origin: str) -> IndexBuild:
        """Read what ``to_json()`` returned; ``origin`` names it in errors.

        Raises:
            UserError: if it is not a valid document.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{origin} is not JSON: {error}") from error
        return parse_build(document, origin=origin)


def parse_build(
    document: object,
    *,
    origin: str,
    lines: Mapping[FieldPath, int] | None = None,
    now: datetime | None = None,
) -> IndexBuild:
    """Check a document.

    ``lines`` has the line of each path in ``origin``. With ``now``, a window that ends later is
    refused, unless it is indexed again, as far as it is there; a build that was accepted once is read
    without it, since a clock may be set back.

    Raises:
        UserError: naming every problem with its path and line, and what is expected.
    """
    lines = lines or {}
    build = parse_document(IndexBuild, document, origin=origin, lines=lines)
    reindex = build.spec.source.reindex is not None
    if now is not None and build.spec.window.end > now and not reindex:
        problem = located(
            ("spec", "window", "end"),
            f"{_time(build.spec.window.end)} is in the future, at {_time(now)}: its listings are "
            "not all there yet",
            lines,
        )
        raise UserError(f"{origin}: {problem}")
    return build


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
