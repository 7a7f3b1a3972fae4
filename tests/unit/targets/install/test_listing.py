"""pack.json: read back as written, and refused where it could lead somewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from packed import make_listing

from motedge.errors import BundleError
from motedge.targets.install.listing import PackListing, bundle_id


def test_it_is_read_back_and_is_the_same_bytes() -> None:
    listing = make_listing(recipe="fp8")
    data = listing.to_bytes()
    assert PackListing.from_bytes(data) == listing
    assert PackListing.from_bytes(data).to_bytes() == data
    assert listing.total_bytes == sum(entry.bytes for entry in listing.files.values())


def test_the_id_changes_with_any_byte() -> None:
    one, two = make_listing().to_bytes(), make_listing(motedge="0.1.1").to_bytes()
    assert bundle_id("edge", one) == bundle_id("edge", one) != bundle_id("edge", two)
    assert len(bundle_id("edge", one)) == len("edge-") + 12


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/.", "a/", "", "..", "a\\b", "a\nb", "a\0b", "ä"),
        *("pack.json", "pack.json.minisig", "x" * 101),
    ],
)
def test_a_name_that_leads_out_or_can_not_be_is_refused(name: str) -> None:
    data = make_listing(files={name: b"x"}).to_bytes()
    with pytest.raises(BundleError, match="name that is not allowed"):
        PackListing.from_bytes(data)


def test_a_file_can_not_be_a_folder_too() -> None:
    data = make_listing({"a/b": b"1", "a": b"2"}).to_bytes()
    with pytest.raises(BundleError, match="for a file and for a folder"):
        PackListing.from_bytes(data)


def _edited(**changes: Any) -> bytes:
    return json.dumps({**json.loads(make_listing().to_bytes()), **changes}).encode()


@pytest.mark.parametrize(
    "data",
    [
        _edited(schema="motedge.pack/v2"),
        _edited(unknown=1),
        _edited(name="../x"),
        _edited(name="a/b"),
        _edited(name=".hidden"),
        _edited(name=None),
        _edited(target="/"),
        _edited(files=[]),
        _edited(files={"a": {"sha256": "0" * 64, "bytes": -1}}),
        _edited(files={"a": {"sha256": "0" * 64, "bytes": True}}),
        _edited(files={"a": {"sha256": "0" * 64, "bytes": 1.5}}),
        _edited(files={"a": {"sha256": "../x", "bytes": 1}}),
        _edited(files={"a": {"sha256": "0" * 64, "bytes": 1, "mode": 0o4755}}),
        _edited(releases=[{"release": 6}]),
        _edited(variants={"gen_step": 1}),
        _edited(target_file="target/x.toml"),
        b"[]",
        b"\xff",
        b"{",
        b'{"a":' * 100_000,
        make_listing().to_bytes().replace(b'"name"', b'"target": "x", "name"', 1),
    ],
)
def test_what_does_not_fit_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        PackListing.from_bytes(data)
