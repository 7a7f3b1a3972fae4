"""The compiled kernels on a GPU, bit for bit against numpy. Without pytest: tests/support/kernels_on_gpu.py."""

from __future__ import annotations

import pytest

from motedge.targets.builders.this_gpu import this_compute_capability


@pytest.mark.gpu
@pytest.mark.device
def test_kernels_are_the_reference_bit_for_bit(capsys: pytest.CaptureFixture[str]) -> None:
    if this_compute_capability() is None:
        pytest.skip("no GPU that CUDA can use")
    pytest.importorskip("cuda.bindings.driver")
    import kernels_on_gpu

    assert kernels_on_gpu.main() == 0, capsys.readouterr().out
