"""Installing: what is refused leaves no trace, what is installed is whole, and the former bundle stays until then."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from minisign_made import MadeKey
from packed import FILES, make_archive, make_listing, stream

from motedge.errors import BundleError, HostError, MotedgeError, UsageError
from motedge.targets.install import InstallOptions, InstallReport, PackListing, Store, install
from motedge.targets.install import job as install_job
from motedge.targets.install.job import check


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "device"


def _install(root: Path, data: bytes, **options: Any) -> InstallReport:
    return install(stream(data), root, InstallOptions(**{"trust_file": root / "no-trust.toml", **options}))


def _archive(number: int = 0, **options: Any) -> bytes:
    return make_archive({**FILES, "number": str(number).encode()}, **options)


def _tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_every_file_is_there_with_its_mode_and_current_points_to_it(root: Path) -> None:
    report = _install(root, _archive())
    found = root / "current"
    assert found.resolve() == report.path.resolve() == (root / "bundles" / report.id).resolve()
    assert {name: (found / name).read_bytes() for name in FILES} == FILES
    assert os.access(found / "install-jetpack6.sh", os.X_OK) and not os.access(found / "LICENSE", os.X_OK)
    assert PackListing.from_bytes((found / "pack.json").read_bytes()) == report.listing
    assert (report.key, report.trusted, report.unchanged) == (None, False, False)


def test_bundles_lie_side_by_side_and_one_can_go_back(root: Path) -> None:
    one, two = _install(root, _archive(1)), _install(root, _archive(2))
    store = Store(root)
    assert {entry.id for entry in store.installed()} == {one.id, two.id} and store.current == two.id
    assert store.rollback() == (two.id, one.id) and store.current == one.id
    with pytest.raises(UsageError, match="nothing to go back to") as caught:
        store.rollback()
    assert one.id in caught.value.got
    # What was gone back from is not what comes before the next one
    three = _install(root, _archive(3), keep=3)
    assert store.rollback() == (three.id, one.id)


def test_only_so_many_stay(root: Path) -> None:
    reports = [_install(root, _archive(number), keep=2) for number in range(4)]
    assert {entry.id for entry in Store(root).installed()} == {report.id for report in reports[2:]}
    assert reports[3].removed == (reports[1].id,)
    assert not list((root / "bundles").glob(".*"))
    assert _install(root, _archive(9), keep=1).removed != ()
    with pytest.raises(UsageError, match="nothing to go back to"):
        Store(root).rollback()


def test_the_one_to_go_back_to_is_kept_rather_than_the_newest(root: Path) -> None:
    one = _install(root, _archive(1))
    _install(root, _archive(2), activate=False)
    three = _install(root, _archive(3), keep=2)
    assert {entry.id for entry in Store(root).installed()} == {one.id, three.id}


def test_the_same_archive_again_changes_nothing(root: Path) -> None:
    one = _install(root, _archive(1))
    before = {p: p.stat().st_mtime_ns for p in (root / "bundles").rglob("*")}
    again = _install(root, _archive(1))
    assert again.unchanged and again.id == one.id and Store(root).current == one.id
    assert {p: p.stat().st_mtime_ns for p in (root / "bundles").rglob("*")} == before


@pytest.mark.parametrize("name", ["LICENSE", "graphs/weights/gen_step.fp16.data", "pack.json"])
@pytest.mark.parametrize("how", ["change", "remove"])
def test_a_damaged_bundle_is_mended_by_its_archive(name: str, how: str, root: Path) -> None:
    one = _install(root, _archive(1))
    whole = _tree(one.path)
    (one.path / name).unlink() if how == "remove" else (one.path / name).write_bytes(b"x")
    again = _install(root, _archive(1))
    assert again.mended == (name,) and _tree(one.path) == whole


def test_a_damaged_bundle_is_not_switched_to(root: Path) -> None:
    one, two = _install(root, _archive(1)), _install(root, _archive(2))
    (one.path / "LICENSE").write_bytes(b"longer than it was")
    for switch in (Store(root).rollback, lambda: Store(root).activate(one.id)):
        with pytest.raises(BundleError, match="is damaged"):
            switch()
        assert Store(root).current == two.id


REFUSED: dict[str, tuple[Callable[[], bytes], dict[str, Any], type[MotedgeError], str]] = {
    "not signed": (_archive, {"require_signature": MadeKey.new().public}, BundleError, "not signed"),
    "signed by another": (
        lambda: _archive(listing=_listing(), signature=MadeKey.new().sign(_listing())),
        {"require_signature": MadeKey.new().public},
        BundleError,
        "not trusted",
    ),
    "cut off": (lambda: _archive()[:-2000], {}, BundleError, "ends too early"),
    "changed": (lambda: _archive().replace(b"licence", b"License"), {}, BundleError, "LICENSE differs"),
    "not for this device": (_archive, {"check": lambda listing: _refuse()}, HostError, "another device"),
}


def _listing() -> bytes:
    return make_listing({**FILES, "number": b"0"}).to_bytes()


def _refuse() -> None:
    raise HostError("another device")


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_leaves_no_trace(case: str, root: Path) -> None:
    make, options, error, said = REFUSED[case]
    one = _install(root, _archive(1))
    before = _tree(root)
    with pytest.raises(error, match=said):
        _install(root, make(), **options)
    assert _tree(root) == before and Store(root).current == one.id
    with pytest.raises(error, match=said):
        check(stream(make()), root, InstallOptions(**{"trust_file": root / "none", **options}))


def test_nothing_behind_the_signature_is_read_before_it_is_judged(root: Path) -> None:
    """A bundle that is not trusted is refused with pack.json and its signature alone."""
    key = MadeKey.new()
    data = make_archive(signature=MadeKey(key.key_id, os.urandom(32)).sign(make_listing().to_bytes()))
    source = stream(data)
    with pytest.raises(BundleError, match="signature is wrong"):
        install(source, root, InstallOptions(require_signature=key.public, trust_file=root / "none"))
    # pack.json, the signature, and the header after it
    assert source.tell() < len(data) - sum(map(len, FILES.values())) and not root.exists()


def test_a_signed_bundle_is_installed_where_its_key_is_trusted(root: Path) -> None:
    key = MadeKey.new()
    report = _install(root, make_archive(signature=key.sign(make_listing().to_bytes())), require_signature=key.public)
    assert (report.key, report.trusted) == (key.name, True)
    assert (root / "current/pack.json.minisig").is_file()


def test_a_signature_over_other_files_does_not_cover_changed_ones(root: Path) -> None:
    """Signed are sizes and sha256 of all files: a file can't be exchanged under a good signature."""
    key = MadeKey.new()
    listing = make_listing().to_bytes()
    files = {**FILES, "LICENSE": b"LICENCE"}
    with pytest.raises(BundleError, match="LICENSE differs"):
        _install(root, make_archive(files, listing, key.sign(listing)), require_signature=key.public)
    assert Store(root).current is None


def test_too_little_disk_is_refused_before_anything_is_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = _install(root, _archive(1))
    before = _tree(root)
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=4000))
    for run in (_install, lambda root, data: check(stream(data), root, InstallOptions(trust_file=root / "none"))):
        with pytest.raises(HostError, match="too little disk space"):
            run(root, _archive(2))
    assert _tree(root) == before and Store(root).current == one.id


def test_engines_count_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build: Any = lambda folder, listing: None  # noqa: E731
    with pytest.raises(HostError, match="too little disk space"):
        _install(root, _archive(), build=build, build_bytes=lambda listing: 10**18)
    assert not list((root / "bundles").iterdir())


def test_a_build_that_fails_leaves_the_former_bundle_active(root: Path) -> None:
    one = _install(root, _archive(1))

    def build(folder: Path, listing: PackListing) -> None:
        assert Store(root).current == one.id and (folder / "LICENSE").is_file()
        (folder / "engines").mkdir(exist_ok=True)
        raise HostError("too little memory")

    with pytest.raises(HostError, match="too little memory"):
        _install(root, _archive(2), build=build)
    store = Store(root)
    assert store.current == one.id and len(store.installed()) == 2
    # The same command again goes on with what was unpacked
    assert _install(root, _archive(2), build=lambda folder, listing: None).unchanged
    assert store.current != one.id


def test_one_at_a_time(root: Path) -> None:
    with Store(root).lock(), pytest.raises(HostError, match="another process"):
        _install(root, _archive())


def test_what_a_killed_process_left_is_removed(root: Path) -> None:
    _install(root, _archive(1))
    for name in (".incoming-x", ".removed-x"):
        (root / "bundles" / name / "deep").mkdir(parents=True)
    (root / ".current-1").symlink_to("bundles/x")
    two = _install(root, _archive(2))
    assert not [p for p in (*root.iterdir(), *(root / "bundles").iterdir()) if p.name.startswith(".")]
    assert Store(root).current == two.id


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.symlink_to("/etc"), lambda p: p.write_text("x")])
def test_a_foreign_current_is_left_alone(make: Callable[[Path], None], root: Path) -> None:
    root.mkdir()
    make(root / "current")
    with pytest.raises(HostError, match="current"):
        _install(root, _archive())
    assert (root / "current").is_symlink() or (root / "current").exists()
    assert not list((root / "bundles").iterdir())


def test_without_a_history_only_the_way_back_is_lost(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, two = _install(root, _archive(1)), _install(root, _archive(2))
    (root / "history.json").write_text("{")
    assert [entry.id for entry in Store(root).installed() if entry.active] == [two.id]
    with pytest.raises(UsageError, match="nothing to go back to"):
        Store(root).rollback()
    assert "is damaged" in caplog.text
    Store(root).activate(one.id)
    assert Store(root).rollback() == (one.id, two.id)


def test_a_bundle_that_is_not_there_is_not_activated(root: Path) -> None:
    one = _install(root, _archive(1))
    with pytest.raises(UsageError, match="no bundle") as caught:
        Store(root).activate(one.id[:-1])
    assert one.id in caught.value.fix
    with pytest.raises(UsageError, match="nothing to go back to"):
        Store(root.parent / "empty").rollback()


def test_checking_writes_nothing(root: Path) -> None:
    report = check(stream(_archive()), root, InstallOptions(trust_file=root / "none"))
    assert report.listing.name == "edge-policy-droid-droid" and not root.exists()
    assert install_job.check is check
