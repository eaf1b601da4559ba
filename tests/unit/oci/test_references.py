from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import UserError
from shashin.oci.references import (
    Reference,
    Repository,
    digest_of,
    parse_reference,
    parse_repository,
)

DIGEST = digest_of(b"")

registries = st.from_regex(
    r"(localhost|[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z0-9]{1,8}){1,3}|\[[0-9a-f]{1,4}::1\])"
    r"(:[1-9][0-9]{0,4})?",
    fullmatch=True,
).filter(lambda registry: registry != "index.docker.io")
paths = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3}|/)[a-z0-9]{1,8}){0,4}", fullmatch=True)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)
digests = st.binary(max_size=8).map(digest_of)
references = st.builds(
    Reference,
    st.builds(Repository, registries, paths),
    st.none() | tags,
    st.none() | digests,
).filter(lambda r: (r.tag or r.digest) is not None)


@given(references)
def test_a_reference_reads_as_it_is_written(reference: Reference) -> None:
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=60) | st.text("abAB09./:@-_[]sh256 ", max_size=60))
def test_any_text_is_a_reference_or_a_clear_error(text: str) -> None:
    try:
        read = parse_reference(text)
    except UserError as error:
        assert "does not name an image" in error.message  # noqa: PT017
        assert error.message.isprintable()  # noqa: PT017
    else:
        assert parse_reference(str(read)) == read


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("python", "docker.io/library/python:latest"),
        ("shop/index-server:1", "docker.io/shop/index-server:1"),
        ("index.docker.io/python", "docker.io/library/python:latest"),
        ("localhost/a", "localhost/a:latest"),
        ("10.0.0.1:5000/shop/a:b", "10.0.0.1:5000/shop/a:b"),
        ("[::1]:5000/a:b", "[::1]:5000/a:b"),
        (f"registry.example/a@{DIGEST}", f"registry.example/a@{DIGEST}"),
        (f"registry.example/a:1@{DIGEST}", f"registry.example/a:1@{DIGEST}"),
    ],
)
def test_short_forms_are_those_of_docker(text: str, full: str) -> None:
    assert str(parse_reference(text)) == full


def test_with_both_the_digest_counts() -> None:
    assert parse_reference(f"r.example/a:1@{DIGEST}").target == DIGEST
    assert parse_reference("r.example/a:1").target == "1"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a repository"),
        ("r.example/Shop/a", "whose parts are lower case"),
        ("r.example/a:", "is not a tag"),
        ("r.example/a:-x", "is not a tag"),
        ("r.example/a@sha256:abc", "is not a digest"),
        ("r.example/a@", "is not a digest"),
        ("r.example:port/a", "is not a host"),
        ("https://r.example/a", "is not a host"),
        ("r.example/a//b", "not a repository"),
        ("r.example/../a", "not a repository"),
        (f"r.example/{'a' * 250}", "longer than 255"),
        ("r.example/a\n:1", "does not name an image"),
    ],
)
def test_a_wrong_reference_says_why(text: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        parse_reference(text)


def test_a_repository_has_no_tag() -> None:
    with pytest.raises(UserError, match="not a repository"):
        parse_repository("r.example/a:1")
