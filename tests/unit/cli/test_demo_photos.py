"""What the demo runs on: rendered products, the user's photos, or the few real ones that come along."""

from __future__ import annotations

from pathlib import Path

from shashin_catalogue import real_photos_folder
from typer.testing import CliRunner

from shashin.cli.app import app
from shashin.cli.demo.command import model_for
from shashin.workload.listings import own_listings


def test_real_photos_are_searched_with_the_model_that_was_made_for_them() -> None:
    assert model_for(None) == "demo-v1"
    assert model_for(real_photos_folder()) == "efficientnet-lite0"


def test_the_shipped_photos_are_listings_and_those_of_several_photos_have_one_to_search_with() -> (
    None
):
    listings = own_listings(real_photos_folder(), at_most=100)
    assert len(listings) == 24
    assert sum(listing.held_back is not None for listing in listings) == 14
    assert all(listing.source.photos for listing in listings)


def test_two_sources_of_photos_are_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    command = ["demo", "--real", "--photos", str(tmp_path), "--state", str(state)]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code != 0
    assert not state.exists()
    assert "--real and --photos are both given" in f"{ran.exception}{ran.output}"
