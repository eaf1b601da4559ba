"""Reads an IndexBuild document from a YAML or JSON file, with the line of each field."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from shashin.builds.document import IndexBuild, parse_build
from shashin.documents.parsing import FieldPath
from shashin.errors import UserError
from shashin.runtime.files import NotARegularFile, open_regular

_MAX_BYTES = 8 * 1024 * 1024
_MAX_DEPTH = 32
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_PLAIN_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads times as text, as JSON has them: their errors are then the same in both."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def read_build_file(path: Path, *, now: datetime) -> IndexBuild:
    """Return the document in a file.

    Raises:
        UserError: if the file cannot be read, or is not a valid document whose window has ended by
            ``now``; the message names the path and line of each problem.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_BYTES + 1)
    except NotARegularFile:
        raise UserError(f"{path} is not a regular file: expected an IndexBuild document") from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {(error.strerror or str(error)).lower()}"
        ) from None
    if len(data) > _MAX_BYTES:
        raise UserError(f"{path} is larger than {_MAX_BYTES >> 20} MiB: expected one IndexBuild")
    document, lines = read_yaml(data, origin=str(path))
    return parse_build(document, origin=str(path), lines=lines, now=now)


def read_yaml(data: bytes, *, origin: str) -> tuple[Any, dict[FieldPath, int]]:
    """Return the only document in a YAML text, and the line of each path in it.

    Raises:
        UserError: if it is not YAML, has several documents, repeats a key or uses an alias.
    """
    reading = _Reading(origin)
    try:
        loader = _Loader(data)
        try:
            node = loader.get_single_node()
            document = None if node is None else reading.value(loader, node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark is not None else ""
        text = ", ".join(filter(None, (error.context, error.problem)))
        raise UserError(f"{origin}: {where}not valid YAML: {text}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from None
    return document, reading.lines


class _Reading:
    def __init__(self, origin: str) -> None:
        self.lines: dict[FieldPath, int] = {}
        self._origin = origin
        self._seen: set[int] = set()

    def value(self, loader: Any, node: yaml.Node, path: FieldPath) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self._seen:
            raise self._refused(node, "an alias (*name) is not supported: write the value again")
        self._seen.add(id(node))
        if len(path) > _MAX_DEPTH:
            raise self._refused(node, "nested too deeply for an IndexBuild")
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
            raise self._refused(node, f"the tag {node.tag} is not supported")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(loader, item, (*path, n)) for n, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, path)
        return loader.construct_object(node)

    def _mapping(self, loader: Any, node: yaml.MappingNode, path: FieldPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise self._refused(key_node, "a key has to be text")
            if key in found:
                raise self._refused(key_node, f"{key} is given twice")
            self.lines[*path, key] = key_node.start_mark.line + 1
            found[key] = self.value(loader, value_node, (*path, key))
        return found

    def _refused(self, node: yaml.Node, why: str) -> UserError:
        return UserError(f"{self._origin}: line {node.start_mark.line + 1}: {why}")
