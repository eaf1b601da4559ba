"""Checks a document against its kind: every problem is named with its path and line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from shashin.documents.parts import API_VERSION, Part
from shashin.documents.suggestions import suggestion
from shashin.errors import UserError

FieldPath = tuple[str | int, ...]
"""The place of a value in a document: keys, and positions in lists."""

_MAX_PROBLEMS: Final = 5

P = TypeVar("P", bound=Part)


def parse_document(
    kind: type[P], document: object, *, origin: str, lines: Mapping[FieldPath, int]
) -> P:
    """Check a document of a kind, whose name is that of the class.

    ``lines`` has the line of each path in ``origin``.

    Raises:
        UserError: naming every problem with its path and line, and what is expected.
    """
    if not isinstance(document, Mapping):
        raise UserError(
            f"{origin} is not an {kind.__name__}: expected the fields {', '.join(_fields((), kind))}"
        )
    _require_this_kind(kind, document, origin, lines)
    try:
        return kind.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        found = sorted(_problems(kind, error), key=lambda problem: _line(problem[0], lines) or 0)
        problems = [located(*problem, lines) for problem in found]
        more = len(problems) - _MAX_PROBLEMS
        shown = [*problems[:_MAX_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
        raise UserError(f"{origin}: {'; '.join(shown)}") from None


def located(path: FieldPath, problem: str, lines: Mapping[FieldPath, int]) -> str:
    """Return a problem with its path, and its line if it is known."""
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    line = _line(path, lines)
    where = "" if line is None else f"line {line}: "
    return f"{where}{name}: {problem}" if name else f"{where}{problem}"


def _require_this_kind(
    kind: type[Part], document: Mapping[Any, Any], origin: str, lines: Mapping[FieldPath, int]
) -> None:
    """Check kind and version first: in another document, every other field is wrong as well."""
    for key, expected in (("kind", kind.__name__), ("apiVersion", API_VERSION)):
        found = document.get(key)
        if found is None:
            raise UserError(f"{origin}: {located((key,), f'missing: expected {expected}', lines)}")
        if found != expected:
            problem = f"{found!r} is not read here: expected {expected}"
            raise UserError(f"{origin}: {located((key,), problem, lines)}")


def _problems(kind: type[Part], error: ValidationError) -> Iterator[tuple[FieldPath, str]]:
    for problem in error.errors():
        path = problem["loc"]
        found = problem["type"]
        own = problem.get("ctx", {}).get("error")
        if own is not None:
            yield path, str(own)
        elif found == "missing":
            yield path, "missing"
        elif found == "extra_forbidden":
            known = _fields(path[:-1], kind)
            yield path, f"unknown field{suggestion(str(path[-1]), known)}"
        elif found == "string_type":
            yield path, f"expected text, found {problem['input']!r}: put it in quotes"
        else:
            yield path, f"{problem['msg'].lower()}, found {problem['input']!r}"


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
