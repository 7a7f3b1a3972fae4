"""A real TensorRT refits a real engine. Skipped without TensorRT's library and a GPU.

Where there is no pytest, as in the kit with TensorRT 8.6 for Python 3.9, the program is run by itself:

    PYTHONPATH=.:tests/support:$PYTHONPATH $PY39 tests/support/refit_on_gpu.py
"""

from __future__ import annotations

import pytest

from motedge.targets.builders.this_gpu import this_compute_capability


@pytest.mark.trt
@pytest.mark.gpu
@pytest.mark.device
def test_an_engine_takes_new_weights(capsys: pytest.CaptureFixture[str]) -> None:
    if this_compute_capability() is None:
        pytest.skip("no GPU that CUDA can use")
    pytest.importorskip("tensorrt")
    pytest.importorskip("cuda.bindings.driver")
    import refit_on_gpu

    assert refit_on_gpu.main() == 0, capsys.readouterr().out
