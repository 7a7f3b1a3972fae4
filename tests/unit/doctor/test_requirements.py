from __future__ import annotations

import platform
import sys

import pytest

from motedge.doctor.requirements import parse, requirements, version_key
from motedge.errors import HostError, InternalError


def test_parses_bounds_and_markers() -> None:
    found = parse('torch<2.14,>=2.13; python_version >= "3.10" and extra == "export"')
    assert found.name == "torch"
    assert found.extra == "export"
    assert found.applies == (sys.version_info >= (3, 10))
    assert found.range == ">=2.13, <2.14"


@pytest.mark.parametrize(
    ("version", "accepted"),
    [("2.13.0+cpu", True), ("2.13", True), ("2.12.9", False), ("2.14", False), ("2.14.0", False), ("2.13.10", True)],
)
def test_range(version: str, accepted: bool) -> None:
    assert parse("torch>=2.13,<2.14").accepts(version) is accepted


def test_equal_bound_ignores_trailing_zeros() -> None:
    assert parse("x==1.2").accepts("1.2.0")
    assert not parse("x==1.2").accepts("1.2.1")


def test_any_version() -> None:
    assert parse("numpy").accepts("0.1")
    assert parse("numpy").range == ""


def test_marker_of_another_python() -> None:
    assert parse('tomli>=2; python_version < "3.0"').applies is False


def test_version_without_numbers() -> None:
    assert version_key("main") == ()


def test_markers_of_the_machine() -> None:
    found = parse(f'x==1; (platform_machine == "{platform.machine()}" and sys_platform == "linux") and extra == "test"')
    assert (found.extra, found.applies) == ("test", sys.platform == "linux")
    assert parse('x; platform_machine == "abacus"').applies is False


@pytest.mark.parametrize(
    "text", ["x~=1.2", 'x; os_name == "nt"', 'x; extra == "a" or extra == "b"', "x @ https://example.com/x.whl"]
)
def test_unknown_forms_are_refused(text: str) -> None:
    with pytest.raises(InternalError):
        parse(text)


def test_every_requirement_of_motedge_is_understood() -> None:
    names = {r.name for r in requirements()}
    assert {"numpy", "onnxruntime", "tokenizers", "jinja2"} <= names


def test_not_installed() -> None:
    with pytest.raises(HostError, match="not installed as a package"):
        requirements("no-such-distribution-of-ours")
