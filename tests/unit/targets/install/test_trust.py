"""Whose bundles a device takes: demands add up, and doubt keeps the door shut."""

from __future__ import annotations

from pathlib import Path

import pytest
from minisign_made import MadeKey

from motedge.errors import BundleError, UsageError
from motedge.targets.install.trust import SCHEMA, VARIABLE, check_signature, demands

MESSAGE = b"pack.json"


def _file(path: Path, *keys: MadeKey, required: str = "true") -> Path:
    texts = ", ".join(f'"{key.public}"' for key in keys)
    path.write_text(f'schema = "{SCHEMA}"\nrequire_signature = {required}\npublic_keys = [{texts}]\n')
    return path


def test_without_a_demand_anything_goes(tmp_path: Path) -> None:
    assert demands(None, tmp_path / "none.toml") == []
    assert check_signature(MESSAGE, None, []) is None
    key = MadeKey.new()
    found = check_signature(MESSAGE, key.sign(b"something else"), [])
    assert found is not None and found.key_name == key.name


def test_a_file_demands_one_of_its_keys(tmp_path: Path) -> None:
    ours, others, stranger = MadeKey.new(), MadeKey.new(), MadeKey.new()
    wanted = demands(None, _file(tmp_path / "trust.toml", ours, others))
    for key in (ours, others):
        assert check_signature(MESSAGE, key.sign(MESSAGE), wanted) is not None
    with pytest.raises(BundleError, match="not signed") as caught:
        check_signature(MESSAGE, None, wanted)
    assert ours.name in str(caught.value) and "trust.toml" in str(caught.value)
    with pytest.raises(BundleError, match="key that is not trusted") as caught:
        check_signature(MESSAGE, stranger.sign(MESSAGE), wanted)
    assert caught.value.got == stranger.name
    with pytest.raises(BundleError, match="signature is wrong"):
        check_signature(MESSAGE + b" ", ours.sign(MESSAGE), wanted)
    forged = MadeKey(ours.key_id, stranger.seed)
    with pytest.raises(BundleError, match="signature is wrong"):
        check_signature(MESSAGE, forged.sign(MESSAGE), wanted)


def test_variable_and_option_tighten_and_never_loosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, stranger = MadeKey.new(), MadeKey.new()
    system = _file(tmp_path / "trust.toml", ours)
    monkeypatch.setenv(VARIABLE, str(_file(tmp_path / "own.toml", stranger, required="false")))
    with pytest.raises(BundleError, match="not trusted"):
        check_signature(MESSAGE, stranger.sign(MESSAGE), demands(stranger.public, system))
    monkeypatch.setenv(VARIABLE, str(_file(tmp_path / "own.toml", stranger)))
    with pytest.raises(BundleError, match="not trusted"):
        check_signature(MESSAGE, ours.sign(MESSAGE), demands(None, system))
    monkeypatch.setenv(VARIABLE, str(_file(tmp_path / "own.toml", ours, stranger)))
    assert check_signature(MESSAGE, ours.sign(MESSAGE), demands(ours.public, system)) is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("require_signature = ", "TOML"),
        ('schema = "motedge.trust/v2"\nrequire_signature = true', "another schema"),
        (f'schema = "{SCHEMA}"', "missing or of a wrong kind"),
        (f'schema = "{SCHEMA}"\nrequire_signature = "no"', "missing or of a wrong kind"),
        (f'schema = "{SCHEMA}"\nrequire_signature = true', "names no key"),
        (f'schema = "{SCHEMA}"\nrequire_signature = true\npublic_keys = "x"', "missing or of a wrong kind"),
        (f'schema = "{SCHEMA}"\nrequire_signature = true\npublic_keys = ["x"]', "not a public key"),
        (f'schema = "{SCHEMA}"\nrequire_signatures = true', "unknown key"),
    ],
)
def test_a_file_that_does_not_fit_lets_nothing_in(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "trust.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        demands(None, tmp_path / "trust.toml")


def test_a_file_that_the_variable_names_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match="can't read"):
        demands(None, tmp_path / "system.toml")
