"""IndexBuild documents: what to build, of what, and by which steps.

A document is the same on one machine and on Kubernetes, where it is a custom resource: its keys are
camelCase, and ``IndexBuild.model_json_schema()`` is its schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from shashin.errors import UserError
from shashin.model_space import ModelSpace, check_model_id
from shashin.shards.kinds.registry import kind_names
from shashin.tiers import DAILY, HOURLY, MONTHLY

API_VERSION: Final = "shashin.dev/v1alpha1"
KIND: Final = "IndexBuild"

SELECT, FETCH, EMBED, BUILD, PUBLISH = "select", "fetch", "embed", "build", "publish"
BUILT_IN_STEPS = (SELECT, FETCH, EMBED, BUILD, PUBLISH)
"""The steps that every pipeline has, in this order."""

BUILT_TIERS = (HOURLY, DAILY, MONTHLY)
"""The tiers whose shards a build can make."""

FieldPath = tuple[str | int, ...]
"""The place of a value in a document: keys, and positions in lists."""

_MAX_PROBLEMS = 5
_LISTED_NAMES = 20
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def _checked(check: Callable[[str], object]) -> AfterValidator:
    def validate(value: str) -> str:
        try:
            check(value)
        except UserError as error:
            raise ValueError(error.message) from None
        return value

    return AfterValidator(validate)


def check_build_name(name: str) -> None:
    """Check that a name can be that of a build, a folder and a Kubernetes object.

    Raises:
        UserError: if it cannot.
    """
    _check_name(name, "build")


def _check_name(name: str, what: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise UserError(
            f"{name!r} cannot be the name of a {what}: expected 1 to 63 lower-case letters, digits "
            "or dashes, the first and the last one a letter or digit"
        )


def _check_kind(kind: str) -> None:
    # Not by index_kind(), which imports the kind's library.
    _check_known(kind, kind_names(), "an index kind")


def _check_tier(tier: str) -> None:
    _check_known(tier, BUILT_TIERS, "a tier that a build can make")


def _check_known(name: str, known: Sequence[str], what: str) -> None:
    if name not in known:
        raise UserError(f"{name!r} is not {what}{suggestion(name, known)}")


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


def _check_labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if _LABEL_KEY.fullmatch(key) is None or _LABEL_VALUE.fullmatch(value) is None:
            raise ValueError(
                f"{key!r}: {value!r} cannot be a label: expected letters, digits, dots, underscores "
                "and dashes, at most 63 each, as for Kubernetes"
            )
    return labels


Text = Annotated[str, StringConstraints(strict=True, min_length=1)]
ModelId = Annotated[str, StringConstraints(strict=True), _checked(check_model_id)]
BuildName = Annotated[str, StringConstraints(strict=True), _checked(check_build_name)]
StepName = Annotated[
    str, StringConstraints(strict=True), _checked(lambda name: _check_name(name, "step"))
]
Second = Annotated[datetime, BeforeValidator(_require_text), AfterValidator(_check_second)]


class _Part(BaseModel):
    """A part of a document."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,  # in code; parse_build() accepts only the camelCase keys
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class Metadata(_Part):
    """The build's name and labels."""

    name: BuildName
    """Unique in a state folder or namespace."""
    labels: Annotated[
        dict[Annotated[str, StringConstraints(strict=True)], Annotated[str, Field(strict=True)]],
        AfterValidator(_check_labels),
    ] = Field(default_factory=dict)


class Window(_Part):
    """The buckets that are built: from ``start`` up to, not including, ``end``."""

    start: Second
    end: Second

    @model_validator(mode="after")
    def _has_time(self) -> Window:
        if self.end <= self.start:
            raise ValueError(
                f"it ends at {_time(self.end)} and starts at {_time(self.start)}: expected an end "
                "after the start"
            )
        return self


class Reindex(_Part):
    """The photos of another model's shards are embedded again."""

    from_model: ModelId


class Source(_Part):
    """Where the vectors come from: exactly one of these."""

    shards: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """Ids of the shards to merge, from their stored vectors."""
    reindex: Reindex | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Source:
        if (self.shards is None) == (self.reindex is None):
            raise ValueError("expected exactly one of shards and reindex")
        if self.shards is not None and (repeated := _repeated(self.shards)):
            raise ValueError(f"shard {repeated!r} is listed more than once")
        return self


class Index(_Part):
    """How the shards are indexed."""

    kind: Annotated[str, StringConstraints(strict=True), _checked(_check_kind)]
    """A name in ``shashin.shards.kinds.registry``."""


class PipelineStep(_Part):
    """A built-in step, by its name alone, or a step of the user's own, with its command."""

    name: StepName
    command: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    image: Text | None = None
    """The container image of the command; only used on Kubernetes."""
    timeout_seconds: Annotated[int, Field(strict=True, ge=1)] | None = None
    """Seconds after which the step is ended and has failed; None: no limit."""

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


def _default_pipeline() -> tuple[PipelineStep, ...]:
    return tuple(PipelineStep(name=name) for name in BUILT_IN_STEPS)


class Spec(_Part):
    """What is built."""

    model: ModelId
    """The model whose shards are made."""
    dimensions: Annotated[int, Field(strict=True, ge=1, le=8192)]
    """Length of its vectors."""
    tier: Annotated[
        str,
        Field(strict=True, json_schema_extra={"enum": list(BUILT_TIERS)}),
        _checked(_check_tier),
    ]
    window: Window
    source: Source
    index: Index | None = None
    """None: the build step's default."""
    minimum_recall: Annotated[float, Field(ge=0, le=1)] = 0.98
    """A shard is not published if its measured recall@10 is lower."""
    pipeline: tuple[PipelineStep, ...] = Field(default_factory=_default_pipeline)

    @property
    def space(self) -> ModelSpace:
        """The model and the length of its vectors."""
        return ModelSpace(self.model, self.dimensions)

    @field_validator("pipeline")
    @classmethod
    def _steps_are_complete_and_in_order(
        cls, pipeline: tuple[PipelineStep, ...], _info: ValidationInfo
    ) -> tuple[PipelineStep, ...]:
        names = [step.name for step in pipeline]
        if repeated := _repeated(names):
            raise ValueError(f"step {repeated!r} is listed more than once")
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
        for shard in self.source.shards or ():
            if not shard.startswith(f"{self.model}."):
                raise ValueError(
                    f"source.shards: {shard!r} is not a shard of {self.model}, whose ids start with "
                    f"'{self.model}.': vectors of two models never mix"
                )
        if self.source.reindex is not None and self.source.reindex.from_model == self.model:
            raise ValueError(
                f"source.reindex.fromModel is the model itself, {self.model}: expected another one"
            )
        return self


class IndexBuild(_Part):
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
    refused, unless it is indexed again, as far as it is there; a build that was accepted once is read without it, since a clock may be set back.

    Raises:
        UserError: naming every problem with its path and line, and what is expected.
    """
    lines = lines or {}
    if not isinstance(document, Mapping):
        raise UserError(f"{origin} is not an {KIND}: expected the fields {_fields((), IndexBuild)}")
    _require_this_kind(document, origin, lines)
    try:
        build = IndexBuild.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        found = sorted(_problems(error), key=lambda problem: _line(problem[0], lines) or 0)
        problems = [_located(*problem, lines) for problem in found]
        more = len(problems) - _MAX_PROBLEMS
        shown = [*problems[:_MAX_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
        raise UserError(f"{origin}: {'; '.join(shown)}") from None
    reindex = build.spec.source.reindex is not None
    if now is not None and build.spec.window.end > now and not reindex:
        problem = _located(
            ("spec", "window", "end"),
            f"{_time(build.spec.window.end)} is in the future, at {_time(now)}: its listings are "
            "not all there yet",
            lines,
        )
        raise UserError(f"{origin}: {problem}")
    return build


def _require_this_kind(
    document: Mapping[Any, Any], origin: str, lines: Mapping[FieldPath, int]
) -> None:
    """Check kind and version first: in another document, every other field is wrong as well."""
    for key, expected in (("kind", KIND), ("apiVersion", API_VERSION)):
        found = document.get(key)
        if found is None:
            raise UserError(f"{origin}: {_located((key,), f'missing: expected {expected}', lines)}")
        if found != expected:
            problem = f"{found!r} is not read here: expected {expected}"
            raise UserError(f"{origin}: {_located((key,), problem, lines)}")


def _problems(error: ValidationError) -> Iterator[tuple[FieldPath, str]]:
    for problem in error.errors():
        path = problem["loc"]
        kind = problem["type"]
        own = problem.get("ctx", {}).get("error")
        if own is not None:
            yield path, str(own)
        elif kind == "missing":
            yield path, "missing"
        elif kind == "extra_forbidden":
            known = _fields(path[:-1], IndexBuild)
            yield path, f"unknown field{suggestion(str(path[-1]), known)}"
        elif kind == "string_type":
            yield path, f"expected text, found {problem['input']!r}: put it in quotes"
        else:
            yield path, f"{problem['msg'].lower()}, found {problem['input']!r}"


def _located(path: FieldPath, problem: str, lines: Mapping[FieldPath, int]) -> str:
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    line = _line(path, lines)
    where = "" if line is None else f"line {line}: "
    return f"{where}{name}: {problem}" if name else f"{where}{problem}"


def _line(path: FieldPath, lines: Mapping[FieldPath, int]) -> int | None:
    """Return the line of a path, or of the innermost part of it that is there."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path)


def _fields(path: FieldPath, part: type[BaseModel]) -> list[str]:
    """Return the keys that the part of a document at a path may have."""
    for step in path:
        if isinstance(step, int):
            continue
        annotations = [f.annotation for f in part.model_fields.values() if f.alias == step]
        part = next(_parts_in(annotations[0]))
    return [field.alias or name for name, field in part.model_fields.items()]


def _parts_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _parts_in(inner)


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return the end of an error about an unknown name: the nearest known one, and all of them."""
    near = get_close_matches(name, known, n=1)
    meant = f": did you mean {near[0]}?" if near else ":"
    listed = ", ".join(known[:_LISTED_NAMES])
    return f"{meant} expected {'one of ' if len(known) > 1 else ''}{listed}"


def _repeated(names: Sequence[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
