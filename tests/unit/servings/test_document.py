"""IndexServing documents: what is wrong is named with its path, and the schema says the same."""

from __future__ import annotations

import pytest

from shashin.errors import UserError
from shashin.offsets.ranges import OffsetRange
from shashin.servings.document import IndexServing, parse_serving
from tests.support.serving_documents import DOCUMENT, WRONG, changed


def parse(document: object) -> IndexServing:
    return parse_serving(document, origin="serving.yaml")


def test_a_document_is_read_with_its_defaults_and_ranges() -> None:
    serving = parse(DOCUMENT)
    assert serving.ranges == [OffsetRange(3, 5, 12)]
    assert serving.spec.replicas == 2
    assert parse(serving.model_dump(mode="json", by_alias=True)) == serving


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        *WRONG,
        ("spec.shards", DOCUMENT["spec"]["shards"] * 2, "is listed more than once"),
        ("spec.shards.0.range", [], "did you mean ranges?"),
        ("kind", "IndexBuild", "'IndexBuild' is not read here: expected IndexServing"),
        ("apiVersion", "shashin.dev/v1", "expected shashin.dev/v1alpha1"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: object, problem: str) -> None:
    with pytest.raises(UserError) as refused:
        parse(changed(path, value))
    assert str(refused.value.message).startswith("serving.yaml: ")
    assert problem in refused.value.message


def test_what_is_no_mapping_is_refused_with_the_fields_of_one() -> None:
    with pytest.raises(
        UserError, match="is not an IndexServing: expected the fields apiVersion"
    ) as e:
        parse([])
    assert "spec" in e.value.message
