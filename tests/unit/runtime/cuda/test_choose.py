"""Which provider is taken, and what is said where none can be."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Optional

import pytest

from motedge.errors import HostError, MissingPackageError, UsageError
from motedge.runtime.cuda.choose import choose_provider


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the packages that seem to be there; "broken pycuda" is one that can't be imported."""
    names: set[str] = set()
    find, load = importlib.util.find_spec, importlib.import_module

    def find_spec(name: str, package: Any = None) -> Any:
        if name.startswith("pycuda"):
            return object() if {"pycuda", "broken pycuda"} & names else None
        if name.startswith("cuda.bindings"):
            if "cuda-bindings" in names:
                return object()
            raise ModuleNotFoundError("No module named 'cuda'")
        return find(name, package)

    def import_module(name: str, package: Any = None) -> Any:
        if name == "pycuda.driver":
            if "broken pycuda" in names:
                raise ImportError("libcuda.so.1: cannot open shared object file")
            return object()
        return load(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.delenv("MOTEDGE_CUDA_PROVIDER", raising=False)
    return names


def test_pycuda_first(installed: set[str]) -> None:
    installed |= {"pycuda", "cuda-bindings"}
    assert choose_provider() == ("pycuda", "pycuda is installed; graphs through cuda-bindings")


def test_pycuda_alone(installed: set[str]) -> None:
    installed |= {"pycuda"}
    name, why = choose_provider()
    assert name == "pycuda"
    assert "no graphs" in why
    assert choose_provider(priorities=True)[0] == "pycuda"


def test_bindings_alone(installed: set[str]) -> None:
    installed |= {"cuda-bindings"}
    assert choose_provider() == ("cuda-bindings", "pycuda is not installed")


def test_bindings_for_priorities(installed: set[str]) -> None:
    installed |= {"pycuda", "cuda-bindings"}
    name, why = choose_provider(priorities=True)
    assert name == "cuda-bindings"
    assert "priority" in why


def test_bindings_where_pycuda_is_broken(installed: set[str]) -> None:
    installed |= {"broken pycuda", "cuda-bindings"}
    with pytest.warns(RuntimeWarning, match="cuda-bindings is taken instead"):
        name, why = choose_provider()
    assert name == "cuda-bindings"
    assert "can't be imported: libcuda.so.1" in why


@pytest.mark.parametrize("named", [None, "pycuda"])
def test_pycuda_alone_without_a_driver(installed: set[str], named: Optional[str]) -> None:
    installed |= {"broken pycuda"}
    with pytest.raises(HostError) as caught:
        choose_provider(named)
    assert caught.value.got == "pycuda is installed and can't be imported: libcuda.so.1: cannot open shared object file"
    assert "install NVIDIA's driver" in str(caught.value)
    assert "cuda-bindings" not in str(caught.value)


def test_pycuda_alone_and_built_for_another_cuda(installed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    installed |= {"broken pycuda"}
    problem = "pycuda is installed and can't be imported: libcurand.so.10: cannot open shared object file"
    monkeypatch.setattr("motedge.runtime.cuda.choose.pycuda_problem", lambda: problem)
    with pytest.raises(HostError, match=r"libcurand(.|\n)*build pycuda for the CUDA of this machine"):
        choose_provider()


def test_nothing_installed(installed: set[str]) -> None:
    with pytest.raises(MissingPackageError, match=r"motedge\[cuda\]"):
        choose_provider()
    with pytest.raises(MissingPackageError, match="cuda-bindings"):
        choose_provider("cuda-bindings")
    with pytest.raises(HostError, match="pycuda is not installed"):
        choose_provider("pycuda")


def test_named(installed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    installed |= {"pycuda", "cuda-bindings"}
    monkeypatch.setenv("MOTEDGE_CUDA_PROVIDER", "cuda-bindings")
    assert choose_provider() == ("cuda-bindings", "MOTEDGE_CUDA_PROVIDER named it")
    assert choose_provider("pycuda", priorities=True) == ("pycuda", "the caller named it")
    monkeypatch.setenv("MOTEDGE_CUDA_PROVIDER", "pycude")
    with pytest.raises(UsageError, match="did you mean 'pycuda'"):
        choose_provider()
    monkeypatch.setenv("MOTEDGE_CUDA_PROVIDER", "")
    assert choose_provider()[0] == "pycuda"
