from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import UserError
from shashin.index_images.annotations import image_tag, pushed_at
from shashin.index_images.garbage import StoredImage, unused_images
from shashin.oci.references import digest_of
from shashin.tiers import SEALED_TIERS

NOW = 1_800_000_000.0
DAY = 86_400.0
DIGESTS = [digest_of(b"%d" % n) for n in range(6)]

contents = st.text("0123456789abcdef", min_size=32, max_size=32)
own_tags = st.builds(
    image_tag,
    st.sampled_from(list(SEALED_TIERS)),
    st.integers(0, 200),
    contents,
    st.floats(NOW - 30 * DAY, NOW),
)
foreign_tags = st.sampled_from(["latest", "v1.2", "hourly-0", "hourly-0-17", "keep"])
images = st.lists(
    st.builds(
        StoredImage,
        st.sampled_from(DIGESTS),
        st.lists(own_tags | foreign_tags, max_size=3).map(tuple),
    ),
    unique_by=lambda image: image.digest,
)


@given(images, st.sets(st.sampled_from(DIGESTS)), st.floats(3600, 30 * DAY))
def test_an_image_is_deleted_only_if_nothing_speaks_for_it(
    stored: list[StoredImage], used: set[str], grace: float
) -> None:
    deleted = unused_images(stored, used, now=NOW, grace_seconds=grace)
    for image in stored:
        times = [pushed_at(tag) for tag in image.tags]
        ours = [at for at in times if at is not None]
        keeps = (
            image.digest in used or not times or len(ours) < len(times) or max(ours) >= NOW - grace
        )
        assert (image in deleted) is not keeps


@given(st.sampled_from(list(SEALED_TIERS)), st.integers(0, 10_000), contents, st.floats(0, 9e11))
def test_a_tag_says_when_its_image_was_pushed(
    tier: str, number: int, content: str, at: float
) -> None:
    assert pushed_at(image_tag(tier, number, content, at)) == int(at)


def test_images_of_one_second_have_tags_of_their_own() -> None:
    first, second = "1" * 32, "2" * 32
    assert image_tag("hourly", 0, first, NOW) != image_tag("hourly", 0, second, NOW)


def test_a_tag_without_content_says_when_its_image_was_pushed() -> None:
    assert pushed_at("hourly-3-001795920074") == 1_795_920_074


@pytest.mark.parametrize(
    "tag",
    ["latest", "hourly-0", "hourly-0-5", "live-0-000000000005", "hourly-0-001795920074-x", ""],
)
def test_any_other_tag_says_nothing(tag: str) -> None:
    assert pushed_at(tag) is None


def test_a_tag_needs_a_sealed_tier() -> None:
    with pytest.raises(UserError, match="a sealed tier"):
        image_tag("live", 0, "1" * 32, NOW)


def test_references_in_place_of_digests_delete_nothing() -> None:
    image = StoredImage(DIGESTS[0], (image_tag("hourly", 0, "1" * 32, 0),))
    with pytest.raises(UserError, match="is not the digest of an image"):
        unused_images([image], {f"r.example/a@{DIGESTS[0]}"}, now=NOW, grace_seconds=DAY)


def test_a_grace_period_is_at_least_an_hour() -> None:
    with pytest.raises(UserError, match="pushed before anything names them"):
        unused_images([], set(), now=NOW, grace_seconds=60)
