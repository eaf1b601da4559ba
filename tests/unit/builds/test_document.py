"""IndexBuild documents: what is accepted, and how mistakes are named."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shashin.builds.document import BUILT_IN_STEPS, BUILT_TIERS, IndexBuild, parse_build
from shashin.builds.document_file import read_build_file, read_yaml
from shashin.errors import UserError
from shashin.shards.kinds.names import kind_names
from tests.support.made_builds import BUILT_IN, DOCUMENT, NOON, changed

TEXT = """\
apiVersion: shashin.dev/v1alpha1
kind: IndexBuild
metadata: {name: demo-v1-daily-20261126, labels: {team: search}}
spec:
  model: demo-v1
  dimensions: 128
  tier: daily
  window: {start: 2026-11-26T00:00:00Z, end: "2026-11-27T00:00:00Z"}
  source:
    shards:
      - demo-v1.hourly.p0000.000000000000-000000000412
  index: {kind: flat-f16}
  minimumRecall: 0.9
  pipeline:
    - name: select
    - name: check
      command: ["python", "check.py"]
      image: example/check:1
      timeoutSeconds: 3600
    - name: fetch
    - name: embed
    - name: build
    - name: publish
"""


def read(text: str, tmp_path: Path, now: datetime = NOON) -> IndexBuild:
    path = tmp_path / "daily.yaml"
    path.write_text(text)
    return read_build_file(path, now=now)


def mistake_in(text: str, tmp_path: Path) -> str:
    with pytest.raises(UserError) as raised:
        read(text, tmp_path)
    assert "\n" not in raised.value.message
    return raised.value.message.removeprefix(f"{tmp_path / 'daily.yaml'}: ")


def test_a_document_is_read_with_all_that_it_says(tmp_path: Path) -> None:
    build = read(TEXT, tmp_path)
    assert build.name == "demo-v1-daily-20261126"
    assert build.metadata.labels == {"team": "search"}
    assert build.spec.space.model_id == "demo-v1"
    assert build.spec.window.end - build.spec.window.start == timedelta(days=1)
    assert build.spec.index is not None
    assert build.spec.index.kind == "flat-f16"
    check = build.spec.pipeline[1]
    assert (check.command, check.timeout_seconds) == (("python", "check.py"), 3600)
    assert not check.built_in
    assert build.spec.pipeline[0].built_in


def test_the_document_in_the_documentation_is_valid(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "operations.md"
    text = page.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    build = read(text, tmp_path)
    assert [step.name for step in build.spec.pipeline if not step.built_in] == ["check"]
    both = text.replace("    # reindex:", "    reindex:")
    assert "expected exactly one of shards and reindex" in mistake_in(both, tmp_path)


def test_json_is_read_as_yaml_is(tmp_path: Path) -> None:
    build = read(TEXT, tmp_path)
    assert read(build.to_json().decode(), tmp_path) == build


def test_a_document_without_a_pipeline_has_the_built_in_steps() -> None:
    build = parse_build(DOCUMENT, origin="a test")
    assert tuple(step.name for step in build.spec.pipeline) == BUILT_IN_STEPS
    assert build.spec.index is None


@pytest.mark.parametrize(
    ("right", "wrong", "mistake"),
    [
        (
            "  tier:",
            "  teir:",
            "line 7: spec.teir: unknown field: did you mean tier? expected one of model, dimensions,",
        ),
        (
            "timeoutSeconds",
            "timoutSeconds",
            "line 19: spec.pipeline[1].timoutSeconds: unknown field: did you mean timeoutSeconds?",
        ),
        (
            "minimumRecall",
            "minimum_recall",
            "line 13: spec.minimum_recall: unknown field: did you mean minimumRecall?",
        ),
        (
            "tier: daily",
            "tier: dialy",
            "did you mean daily? expected one of hourly, daily, monthly",
        ),
        (
            "flat-f16",
            "flat-f61",
            "line 12: spec.index.kind: 'flat-f61' is not an index kind: did you mean flat-f16?",
        ),
        (
            "    - name: fetch",
            "    - name: fecth",
            "line 20: spec.pipeline[2]: 'fecth' is not a built-in step and has no command: did you ",
        ),
        ("model: demo-v1", "model: ../mine", "line 5: spec.model: model id '../mine' cannot be used"),
        ("kind: IndexBuild", "kind: Deployment", "line 2: kind: 'Deployment' is not read here"),
        ("v1alpha1", "v1", "line 1: apiVersion: 'shashin.dev/v1' is not read here"),
        ("  dimensions: 128\n", "", "line 4: spec.dimensions: missing"),
        ("dimensions: 128", "dimensions: '128'", "line 6: spec.dimensions: input should be a valid"),
        ('"python", "check.py"', '"python", 5', "line 17: spec.pipeline[1].command[1]: expected text"),
        ("name: demo-v1-daily", "name: Demo", "line 3: metadata.name: 'Demo-20261126' cannot be"),
        ("team: search", "team: a b", "line 3: metadata.labels: 'team': 'a b' cannot be a label"),
        ("minimumRecall: 0.9", "minimumRecall: 9", "line 13: spec.minimumRecall: input should be less"),
        ("timeoutSeconds: 3600", "timeoutSeconds: 0", "line 19: spec.pipeline[1].timeoutSeconds"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line_and_what_is_expected(
    right: str, wrong: str, mistake: str, tmp_path: Path
) -> None:
    text = TEXT.replace(right, wrong)
    assert text != TEXT
    assert mistake in mistake_in(text, tmp_path)


@pytest.mark.parametrize(
    ("spec", "mistake"),
    [
        ({"source": {}}, "spec.source: expected exactly one of shards and reindex"),
        (
            {"source": {"shards": ["demo-v1.a"], "reindex": {"fromModel": "old"}}},
            "spec.source: expected exactly one of shards and reindex",
        ),
        ({"source": {"shards": ["demo-v1.a", "demo-v1.a"]}}, "is listed more than once"),
        ({"source": {"shards": []}}, "spec.source.shards: "),
        ({"source": {"shards": ["other.hourly.a"]}}, "is not a shard of demo-v1"),
        ({"source": {"reindex": {"fromModel": "demo-v1"}}}, "expected another one"),
        (
            {"window": {"start": "2026-11-27T00:00:00Z", "end": "2026-11-26T00:00:00Z"}},
            "spec.window: it ends at 2026-11-26T00:00:00Z and starts at 2026-11-27T00:00:00Z",
        ),
        (
            {"window": {"start": "2026-11-26T00:00:00Z", "end": "2026-11-27T00:00:00.5Z"}},
            "spec.window.end: expected a full second",
        ),
        (
            {"window": {"start": "2026-11-26T00:00:00+09:00", "end": "2026-11-27T00:00:00Z"}},
            "spec.window.start: expected a time in UTC",
        ),
        (
            {"window": {"start": "2026-11-26T00:00:00", "end": "2026-11-27T00:00:00Z"}},
            "spec.window.start: expected a time in UTC",
        ),
        (
            {"window": {"start": 20261126, "end": "2026-11-27T00:00:00Z"}},
            "spec.window.start: expected a time such as 2026-11-26T00:00:00Z, found 20261126",
        ),
        ({"pipeline": BUILT_IN[:4]}, "spec.pipeline: without 'publish': every pipeline needs"),
        (
            {"pipeline": [BUILT_IN[1], BUILT_IN[0], *BUILT_IN[2:]]},
            "spec.pipeline: the built-in steps are in the order fetch, select, embed, build, publish",
        ),
        ({"pipeline": [*BUILT_IN, BUILT_IN[0]]}, "'select' is listed more than once"),
        (
            {"pipeline": [*BUILT_IN[:4], {"name": "publish", "command": ["true"]}]},
            "'publish' is a built-in step and has no command of its own",
        ),
        (
            {"pipeline": [{"name": "select", "image": "mine"}, *BUILT_IN[1:]]},
            "an image is only for a step with a command",
        ),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(spec: dict[str, Any], mistake: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_build(changed(**spec), origin="a test")
    assert mistake in raised.value.message


def test_a_window_that_has_not_ended_is_refused_once(tmp_path: Path) -> None:
    early = datetime(2026, 11, 26, 23, 59, tzinfo=UTC)
    with pytest.raises(UserError, match=r"line 8: spec\.window\.end: .* is in the future"):
        read(TEXT, tmp_path, now=early)
    build = read(TEXT, tmp_path, now=datetime(2026, 11, 27, tzinfo=UTC))
    assert IndexBuild.from_json(build.to_json(), origin="a record") == build, "whatever the clock"


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    text = TEXT.replace("  minimumRecall: 0.9", "\n".join(f"  odd{n}: 1" for n in range(8)))
    message = mistake_in(text, tmp_path)
    assert message.count("unknown field") == 5
    assert message.endswith("; and 3 more")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "is not an IndexBuild"),
        ("- a list", "is not an IndexBuild"),
        ("spec: {}", "kind: missing: expected IndexBuild"),
        ("a: 1\nb: 2\na: 3", "line 3: a is given twice"),
        ("a: &name 1\nb: *name", "line 1: an alias (*name) is not supported"),
        ("a: &name [*name]", "line 1: an alias (*name) is not supported"),
        ("a: b: c", "line 1: not valid YAML: mapping values are not allowed in this context"),
        ("a: 1\n---\nb: 2", "line 2: not valid YAML: expected a single document"),
        ("a: !!python/name:os.system x", "line 1: not valid YAML: could not determine a constructor"),
        ("a: !!set {b}", "line 1: the tag tag:yaml.org,2002:set is not supported"),
        ("[a]: 1", "line 1: a key has to be text"),
        ("a: \x00", "not valid YAML: "),
        ("a: " + "[" * 100_000, "not valid YAML: "),
        ("a: " + "[" * 40 + "]" * 40, "nested too deeply"),
        ("a: " + "9" * 5000, "not valid YAML: "),
    ],
)  # fmt: skip
def test_what_is_no_document_is_refused(text: str, mistake: str, tmp_path: Path) -> None:
    assert mistake in mistake_in(text, tmp_path)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.yaml cannot be read: no such file"):
        read_build_file(tmp_path / "gone.yaml", now=NOON)
    with pytest.raises(UserError, match="cannot be read: is a directory"):
        read_build_file(tmp_path, now=NOON)
    with pytest.raises(UserError, match="is not a regular file"):
        read_build_file(Path("/dev/zero"), now=NOON)


NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
MODELS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,20}", fullmatch=True)
EARLIEST, LATEST = NOON.replace(year=2000, tzinfo=None), NOON.replace(year=2100, tzinfo=None)
HOURS = st.datetimes(
    EARLIEST, LATEST, timezones=st.just(UTC)
).map(lambda time: time.replace(minute=0, second=0, microsecond=0))  # fmt: skip
PRINTED = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=20)
OWN_STEPS = st.fixed_dictionaries(
    {"name": NAMES.filter(lambda name: name not in BUILT_IN_STEPS)},
    optional={"timeoutSeconds": st.integers(1, 10**6), "image": PRINTED},
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    model = draw(MODELS)
    start, end = sorted(draw(st.tuples(HOURS, HOURS).filter(lambda pair: pair[0] != pair[1])))
    shards = draw(st.lists(PRINTED.map(f"{model}.".__add__), min_size=1, max_size=4, unique=True))
    source: dict[str, Any] = {"shards": shards}
    if draw(st.booleans()):
        source = {"reindex": {"fromModel": draw(MODELS.filter(lambda other: other != model))}}
    pipeline: list[dict[str, Any]] = list(BUILT_IN)
    for own in draw(st.lists(OWN_STEPS, max_size=3, unique_by=lambda step: str(step["name"]))):
        step = {**own, "command": draw(st.lists(PRINTED, min_size=1, max_size=3))}
        pipeline.insert(draw(st.integers(0, len(pipeline))), step)
    spec = {
        "model": model,
        "dimensions": draw(st.integers(1, 8192)),
        "tier": draw(st.sampled_from(BUILT_TIERS)),
        "window": {"start": f"{start:%Y-%m-%dT%H:%M:%SZ}", "end": f"{end:%Y-%m-%dT%H:%M:%SZ}"},
        "source": source,
        "minimumRecall": draw(st.floats(0, 1)),
        "pipeline": pipeline,
    }
    if draw(st.booleans()):
        spec["index"] = {"kind": draw(st.sampled_from(kind_names()))}
    return {**DOCUMENT, "metadata": {"name": draw(NAMES)}, "spec": spec}


@given(documents())
def test_a_document_survives_being_stored_and_written_as_yaml(document: dict[str, Any]) -> None:
    build = parse_build(document, origin="a test")
    assert IndexBuild.from_json(build.to_json(), origin="a test") == build
    text = yaml.safe_dump(document, allow_unicode=True)
    from_yaml, lines = read_yaml(text.encode(), origin="a test")
    assert parse_build(from_yaml, origin="a test", lines=lines) == build
    assert {path[:1] for path in lines if path} == {(key,) for key in document}


@given(documents(), st.data())
def test_an_unknown_field_is_found_wherever_it_is(
    document: dict[str, Any], data: st.DataObject
) -> None:
    document = json.loads(json.dumps(document))
    parts: list[dict[str, Any]] = [document, document["metadata"], document["spec"]]
    parts += [document["spec"]["window"], document["spec"]["source"], *document["spec"]["pipeline"]]
    data.draw(st.sampled_from(parts))["oddity"] = 1
    with pytest.raises(UserError, match=r"oddity: unknown field.*: expected one of "):
        parse_build(document, origin="a test")


def test_one_schema_has_all_fields_and_forbids_others() -> None:
    schema = IndexBuild.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    assert all(part["additionalProperties"] is False for part in parts)
    assert {"fromModel", "minimumRecall", "timeoutSeconds", "apiVersion"} <= {
        name for part in parts for name in part["properties"]
    }
    assert schema["$defs"]["Spec"]["properties"]["tier"]["enum"] == list(BUILT_TIERS)
