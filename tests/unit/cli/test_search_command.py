from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shashin.cli.search.command import answer_document, print_answer, read_query
from shashin.client.coverage_text import coverage_document, coverage_line
from shashin.errors import UserError
from shashin.v1 import events_pb2, index_pb2, search_pb2


def test_exactly_one_query_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="0 queries were given"):
        read_query(None, None, None)
    with pytest.raises(UserError, match="2 queries were given"):
        read_query(tmp_path / "a.jpg", "listing", None)


def test_a_photo_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.jpg cannot be read: no such file"):
        read_query(tmp_path / "a.jpg", None, None)


def test_a_vector_is_read_from_npy_and_from_json(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.arange(4.0)[None, :])
    (tmp_path / "v.json").write_text("[0, 1, 2, 3]")
    for name in ("v.npy", "v.json"):
        vector = read_query(None, None, tmp_path / name).vector
        assert vector is not None
        assert vector.dtype == np.float32
        assert vector.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("text", ["{}", '["a"]', "[[1, 2], [3, 4]]", "nonsense", "3"])
def test_a_file_without_a_vector_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / "v.json").write_text(text)
    with pytest.raises(UserError, match=r"v\.json"):
        read_query(None, None, tmp_path / "v.json")


def test_missing_ranges_are_named() -> None:
    missing = [index_pb2.OffsetRange(partition=p, from_offset=3, to_offset=9) for p in range(6)]
    line = coverage_line(search_pb2.Coverage(missing=missing, unknown_partitions=[7]))
    assert line.startswith("coverage NOT complete: missing partition 0 offsets 3 to 8,")
    assert "and 2 more ranges; partitions 7 unknown" in line
    assert "no partition of the log is known" in coverage_line(search_pb2.Coverage())


def caught_up(*, embedder: int | None = 0, **fields: Any) -> search_pb2.Coverage:
    """Return complete coverage with an embedder that is so many records behind."""
    stages = [
        index_pb2.StageLag(stage="downloader", records=0),
        index_pb2.StageLag(stage="embedder", records=embedder, seconds=35 if embedder else 0),
    ]
    return search_pb2.Coverage(complete=True, stages=stages, **fields)


def test_every_event_was_searched_only_if_no_stage_is_behind_and_the_log_has_a_known_end() -> None:
    assert coverage_line(caught_up()) == "coverage complete: every event so far was searched"
    assert coverage_document(caught_up())["every_event_searched"] is True
    for coverage, why in (
        (caught_up(embedder=1200), "the embedder is 1,200 records (35 s) behind"),
        (caught_up(embedder=None), "how far the embedder is behind is unknown"),
        (caught_up(end_unknown_seconds=40), "the end of the log has been unknown for 40 s"),
        (search_pb2.Coverage(complete=True), "how far the stages before are behind is unknown"),
    ):
        line = coverage_line(coverage)
        assert line.startswith("coverage complete, but perhaps not every event so far was searched")
        assert line.endswith(why)
        assert coverage_document(coverage)["every_event_searched"] is False


def test_the_lag_of_stages_is_in_the_json() -> None:
    assert coverage_document(caught_up(embedder=1200))["stages"] == [
        {"stage": "downloader", "records_behind": 0, "seconds_behind": 0.0},
        {"stage": "embedder", "records_behind": 1200, "seconds_behind": 35.0},
    ]
    unknown = coverage_document(caught_up(embedder=None))["stages"][1]
    assert unknown == {"stage": "embedder", "records_behind": None, "seconds_behind": None}


def an_answer() -> search_pb2.SearchResponse:
    return search_pb2.SearchResponse(
        hits=[
            search_pb2.Hit(
                listing_id="[red]chair",
                version=2,
                photo_number=1,
                score=0.5,
                tier="hourly",
                attributes=events_pb2.Attributes(price_minor=1200, currency="JPY"),
            )
        ],
        coverage=search_pb2.Coverage(complete=True),
        failed_endpoints=[search_pb2.FailedEndpoint(name="hourly-0", address="h:1", error="gone")],
        model_id="demo-v1",
        timings=search_pb2.Timings(total=0.25),
        endpoints=2,
    )


def test_the_table_says_what_was_found_and_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    print_answer(an_answer())
    printed = capsys.readouterr().out
    assert "[red]chair" in printed
    assert "1,200 JPY" in printed
    assert "250 ms over 2 endpoints" in printed
    assert "hourly-0 at h:1 failed: gone" in printed


def test_no_hits_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    print_answer(search_pb2.SearchResponse())
    assert "no listings found" in capsys.readouterr().out


def test_json_holds_the_same() -> None:
    document = json.loads(json.dumps(answer_document(an_answer())))
    assert document["hits"][0]["listing_id"] == "[red]chair"
    assert document["hits"][0]["photo_number"] == 1
    assert document["coverage"] == coverage_document(search_pb2.Coverage(complete=True))
    assert document["coverage"]["complete"] is True
    assert document["timings"]["total"] == 0.25


def test_a_file_that_no_query_can_be_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(6 * 1024**3)
    for query in ((tmp_path / "sparse.jpg", None, None), (None, None, tmp_path / "sparse.jpg")):
        with pytest.raises(UserError, match=r"sparse\.jpg is larger than 16 MiB"):
            read_query(*query)


def test_a_pipe_is_refused_at_once_as_a_photo_and_as_a_vector(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for query in ((tmp_path / "pipe", None, None), (None, None, tmp_path / "pipe")):
        with pytest.raises(UserError, match=r"pipe cannot be read: not a regular file"):
            read_query(*query)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, f"[{'9' * 400}]", f"[{'9' * 5000}]"],
    ids=["nested", "too large for a float", "of too many digits"],
)
def test_an_odd_json_vector_is_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "v.json").write_text(text)
    with pytest.raises(UserError, match=r"v\.json is neither"):
        read_query(None, None, tmp_path / "v.json")


def test_a_npy_file_that_claims_more_than_it_has_is_one_error(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**15,)}
    )
    (tmp_path / "v.npy").write_bytes(header.getvalue())
    with pytest.raises(UserError, match=r"v\.npy is neither"):
        read_query(None, None, tmp_path / "v.npy")
