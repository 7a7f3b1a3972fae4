"""The kernels' own source, compiled for the CPU, against numpy: the same bits, barriers and indices included."""

from __future__ import annotations

import pytest
import source_cuda
from ingest_scene import ingested, ingested_image, random_frame, reference, rgb_of
from kernel_scene import SolverScene
from source_cuda import SourceCuda

from motedge.runtime.kernels.frame_spec import FrameSpec
from motedge.runtime.kernels.library import KernelLibrary
from motedge.runtime.kernels.record import KernelRecord
from motedge.runtime.policy.canvas import normalise, pad_canvas
from motedge.runtime.policy.resize import resize_bilinear
from motedge.runtime.policy.views import COMPOSED_SIZE, VIEW_NAMES

pytestmark = pytest.mark.skipif(bool(source_cuda.missing()), reason=source_cuda.missing() or "-")
RECORD = KernelRecord("", "", 1, "13.0", (90,), 120)


@pytest.mark.parametrize(
    ("vision", "action", "order", "steps"),
    [
        ((48, 3, 10, 11), (9, 64), 2, 4),
        ((3, 5, 1, 1), (3, 7), 2, 5),
        ((1, 1, 1, 1), (1, 1), 1, 1),
        ((5, 2, 3, 7), (4, 33), 3, 6),
        ((2, 4, 1, 3), (2, 5), 1, 3),
        ((3, 1, 5, 7), (0, 64), 2, 4),
    ],
)
@pytest.mark.parametrize("guided", [0, 0b0110, 0b111111])
def test_solver(
    vision: tuple[int, int, int, int], action: tuple[int, int], order: int, steps: int, guided: int
) -> None:
    cuda = SourceCuda()
    with cuda.current():
        library = KernelLibrary(cuda, b"source", RECORD)
        raw_dim = max(1, action[1] - 2)
        scene = SolverScene(cuda, library, vision, action, steps=steps, order=order, raw_dim=raw_dim, seed=guided)
        scene.begin()
        scene.check_state()
        for k in range(steps):
            assert scene.get("t") == scene.coefficients.timesteps[k]
            scene.draw_velocities()
            scene.solver.step(k, bool(guided >> k & 1), scene.stream)
            scene.reference_step(k, bool(guided >> k & 1))
            scene.check_state()
        assert not scene.get("findings").any()
    cuda.close()


@pytest.mark.parametrize("element", [0, 127, 128, 1055, -1])
@pytest.mark.parametrize("branch", ["v_cond", "v_uncond"])
def test_one_wrong_number_anywhere_is_found(element: int, branch: str) -> None:
    cuda = SourceCuda()
    with cuda.current():
        scene = SolverScene(cuda, KernelLibrary(cuda, b"source", RECORD), (8, 3, 5, 9), (7, 9), steps=2)
        scene.begin()
        scene.draw_velocities()
        last = scene.layout.action_offset + scene.layout.action_count - 1
        scene.host[branch][element if element >= 0 else last] = float("nan")
        scene.put(branch)
        scene.solver.step(1, True, scene.stream)
        assert scene.get("findings").tolist() == [0, 1 if branch == "v_cond" else 2]
    cuda.close()


@pytest.mark.parametrize(
    ("sources", "content", "canvas"),
    [
        (dict.fromkeys(VIEW_NAMES, FrameSpec(180, 320, "nv12")), COMPOSED_SIZE, (544, 640)),
        (
            {"wrist": FrameSpec(101, 64, "bgr", 211), "right": FrameSpec(500, 302, "nv12", 320, "bt601", True, 170000)},
            COMPOSED_SIZE,
            (560, 672),
        ),
        ({"left": FrameSpec(730, 1290, "rgb")}, (45, 53), (48, 64)),
        ({"right": FrameSpec(4320, 150, "rgb")}, (27, 32), (64, 64)),
    ],
)
def test_cameras(sources: dict[str, FrameSpec], content: tuple[int, int], canvas: tuple[int, int]) -> None:
    frames = {name: random_frame(spec, seed) for seed, (name, spec) in enumerate(sources.items())}
    cuda = SourceCuda()
    with cuda.current():
        got, _ = ingested(cuda, KernelLibrary(cuda, b"source", RECORD), sources, frames, content, canvas)
        expected = reference({name: rgb_of(sources[name], frame) for name, frame in frames.items()}, content, canvas)
        assert (got == expected).all()
    cuda.close()


@pytest.mark.parametrize("size", [(54, 64), (108, 128), (33, 47), (71, 200), (1, 1)])
@pytest.mark.parametrize("canvas", [(54, 64), (56, 80), (120, 64)])
def test_image(size: tuple[int, int], canvas: tuple[int, int]) -> None:
    spec = FrameSpec(*size, pitch_bytes=3 * size[1] + 1)
    frame = random_frame(spec, 1)
    cuda = SourceCuda()
    with cuda.current():
        got = ingested_image(cuda, KernelLibrary(cuda, b"source", RECORD), spec, frame, (54, 64), canvas)
        expected = normalise(pad_canvas(resize_bilinear(rgb_of(spec, frame), (54, 64)), canvas))
        assert (got == expected).all()
    cuda.close()
