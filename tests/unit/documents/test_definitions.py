"""The generated definitions: structural schemas, described and bounded as kubectl and CEL need it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CRDS = sorted((Path(__file__).parents[3] / "k8s" / "crds").glob("index*.yaml"))


@pytest.fixture(params=CRDS, ids=lambda path: path.stem)
def schema(request: pytest.FixtureRequest) -> Any:
    definition = yaml.safe_load(request.param.read_text(encoding="utf-8"))
    (version,) = definition["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def below(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, schema
    for key, value in schema.get("properties", {}).items():
        yield from below(value, f"{path}.{key}")
    if "items" in schema:
        yield from below(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from below(schema["additionalProperties"], f"{path}.*")


def test_every_value_has_one_type_and_no_reference(schema: Any) -> None:
    for path, value in below(schema):
        assert isinstance(value["type"], str), path
        assert not {"$ref", "anyOf", "oneOf", "allOf", "const", "title"} & value.keys(), path


def test_every_field_of_a_spec_is_described(schema: Any) -> None:
    undescribed = [
        path
        for path, value in below(schema["properties"]["spec"])
        if not value.get("description") and not path.endswith(("[]", ".*"))
    ]
    assert undescribed == []


def test_both_rules_of_a_field_with_two_are_there(schema: Any) -> None:
    fields = dict(below(schema["properties"]["spec"]))
    if ".window" not in fields:
        return
    rules = [rule["rule"] for rule in fields[".window"]["x-kubernetes-validations"]]
    assert rules == ["self.end > self.start", "self == oldSelf"]
