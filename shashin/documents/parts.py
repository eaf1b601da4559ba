"""What documents consist of: parts with camelCase keys, and values that are checked on the way in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from shashin.documents.suggestions import suggestion
from shashin.errors import UserError
from shashin.model_space import MAX_MODEL_ID, ModelSpace, check_model_id

API_VERSION: Final = "shashin.dev/v1alpha1"

NAME_PATTERN: Final = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
"""Of what can be the name of a Kubernetes object, a label's value and a folder."""

_NAME = re.compile(NAME_PATTERN)
_LABEL_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def checked(check: Callable[[str], object]) -> AfterValidator:
    """Return a validator that has ``check`` raise UserError for wrong text."""

    def validate(value: str) -> str:
        try:
            check(value)
        except UserError as error:
            raise ValueError(error.message) from None
        return value

    return AfterValidator(validate)


def check_name(name: str, what: str) -> None:
    """Check that a name can be that of a Kubernetes object.

    Raises:
        UserError: if it cannot; ``what`` says of what it is the name.
    """
    if _NAME.fullmatch(name) is None:
        raise UserError(
            f"{name!r} cannot be the name of a {what}: expected 1 to 63 lower-case letters, digits "
            "or dashes, the first and the last one a letter or digit"
        )


def check_known(name: str, known: Sequence[str], what: str) -> None:
    """Check that a name is one of those that are known.

    Raises:
        UserError: if it is not; ``what`` says what it is not.
    """
    if name not in known:
        raise UserError(f"{name!r} is not {what}{suggestion(name, known)}")


def _check_labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if _LABEL_KEY.fullmatch(key) is None or _LABEL_VALUE.fullmatch(value) is None:
            raise ValueError(
                f"{key!r}: {value!r} cannot be a label: expected letters, digits, dots, underscores "
                "and dashes, at most 63 each, as for Kubernetes"
            )
    return labels


Text = Annotated[str, StringConstraints(strict=True, min_length=1)]
ModelId = Annotated[
    str,
    StringConstraints(strict=True),
    Field(json_schema_extra={"maxLength": MAX_MODEL_ID}),
    checked(check_model_id),
]
Labels = Annotated[
    dict[Annotated[str, StringConstraints(strict=True)], Annotated[str, Field(strict=True)]],
    AfterValidator(_check_labels),
]


def repeated(names: Iterable[str]) -> str:
    """Return the first name that is there twice; empty if none is."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def check_shards_of(model: str, shards: Iterable[str], field: str) -> None:
    """Check that shards are a model's own.

    Raises:
        ValueError: when one is not; the message begins with the field that names it.
    """
    for shard in shards:
        if not shard.startswith(f"{model}."):
            raise ValueError(
                f"{field}: {shard!r} is not a shard of {model}, whose ids start with '{model}.': "
                "vectors of two models never mix"
            )


VALIDATIONS: Final = "x-kubernetes-validations"


def validation(rule: str, message: str) -> ConfigDict:
    """Return the configuration of a part with a rule in CEL, which the API of Kubernetes checks.

    The part's own validator has to check the same, for documents that are read elsewhere.
    """
    return ConfigDict(json_schema_extra={VALIDATIONS: [{"rule": rule, "message": message}]})


def same_as_before(name: str) -> Any:
    """Return what makes a field one that cannot be changed once the object exists."""
    return validated("self == oldSelf", f"{name} cannot be changed: create another object")


def validated(rule: str, message: str) -> Any:
    """Return a field's rule in CEL; see ``validation``."""
    return Field(json_schema_extra={VALIDATIONS: [{"rule": rule, "message": message}]})


class Part(BaseModel):
    """A part of a document. Docstrings of fields are their descriptions in schemas."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,  # in code; parse_document() accepts only the camelCase keys
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class ModelPart(Part):
    """A part that is about vectors of one model."""

    model: Annotated[ModelId, same_as_before("model")]
    """The model whose shards these are."""
    dimensions: Annotated[int, Field(strict=True, ge=1, le=8192), same_as_before("dimensions")]
    """Length of its vectors."""

    @property
    def space(self) -> ModelSpace:
        """The model and the length of its vectors."""
        return ModelSpace(self.model, self.dimensions)
