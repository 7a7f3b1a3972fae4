"""The compiled kernels on a real GPU against numpy, bit for bit: a line of JSON a check, exit code 1 if one fails.

Python 3.9, numpy and cuda-bindings (or pycuda with it) are enough. Takes the package's fatbin if it fits the GPU, else
compiles one with nvcc into a temporary folder. From the repository's root:

    PYTHONPATH=.:tests/support python3 tests/support/kernels_on_gpu.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ingest_scene import ingested, ingested_image, random_frame, reference, rgb_of
from kernel_scene import SolverScene

from motedge.errors import HostError
from motedge.runtime.cuda.choose import open_cuda
from motedge.runtime.kernels.frame_spec import FrameSpec
from motedge.runtime.kernels.library import KernelLibrary
from motedge.runtime.kernels.record import FATBIN_NAME
from motedge.runtime.policy.canvas import normalise, pad_canvas
from motedge.runtime.policy.resize import resize_bilinear
from motedge.runtime.policy.views import COMPOSED_SIZE, VIEW_NAMES

ROOT = Path(__file__).resolve().parents[2]
# Vision, action, steps, order: tiny and odd ones, and those of the DROID policy
SOLVER_SHAPES = (
    ((1, 1, 1, 1), (1, 1), 1, 1),
    ((3, 5, 1, 1), (3, 7), 5, 2),
    ((5, 2, 3, 7), (4, 33), 6, 3),
    ((2, 4, 1, 3), (2, 5), 3, 1),
    ((48, 3, 10, 11), (9, 64), 8, 2),
    # Images and videos without actions
    ((3, 1, 5, 7), (0, 64), 4, 2),
    ((48, 5, 30, 52), (0, 64), 4, 2),
    ((48, 9, 34, 40), (33, 64), 4, 2),
)
CAMERAS: tuple[tuple[str, dict[str, FrameSpec], tuple[int, int], tuple[int, int]], ...] = (
    ("three 1280x720 NV12", dict.fromkeys(VIEW_NAMES, FrameSpec(720, 1280, "nv12")), COMPOSED_SIZE, (544, 640)),
    ("three 1920x1080 NV12", dict.fromkeys(VIEW_NAMES, FrameSpec(1080, 1920, "nv12", 2048)), COMPOSED_SIZE, (544, 640)),
    ("three 640x360 RGB", dict.fromkeys(VIEW_NAMES, FrameSpec(360, 640)), COMPOSED_SIZE, (544, 640)),
    (
        "odd sizes, one missing",
        {"wrist": FrameSpec(101, 64, "bgr", 211), "right": FrameSpec(500, 302, "nv12", 320, "bt601", True, 170000)},
        COMPOSED_SIZE,
        (560, 672),
    ),
    ("another content size", {"left": FrameSpec(730, 1290), "wrist": FrameSpec(480, 640)}, (270, 320), (272, 320)),
    ("8K", {"left": FrameSpec(4320, 7680, "nv12")}, COMPOSED_SIZE, (544, 640)),
)
IMAGES = (((540, 640), (540, 640), (544, 640)), ((33, 47), (54, 64), (120, 64)), ((1080, 1280), (540, 640), (544, 672)))


def open_kernels(cuda: Any) -> KernelLibrary:
    """The package's kernels, or ones that are compiled now for this GPU."""
    library, reason = KernelLibrary.find(cuda)
    if library is not None:
        return library
    folder = Path(tempfile.mkdtemp(prefix="motedge-kernels-"))
    sm = cuda.facts.compute_capability.replace(".", "")
    command = [sys.executable, str(ROOT / "scripts" / "build_kernels.py"), "--sm", sm, "--output", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HostError("no kernels for this GPU", got=f"{reason}; {done.stderr}")
    return KernelLibrary.load(cuda, folder / FATBIN_NAME)


def check_solver(cuda: Any, library: KernelLibrary, shape: Any, guided: int) -> None:
    vision, action, steps, order = shape
    raw_dim = max(1, action[1] - 2)
    scene = SolverScene(cuda, library, vision, action, steps=steps, order=order, raw_dim=raw_dim, seed=guided)
    for _ in range(2):
        scene.begin()
        scene.check_state()
        for k in range(steps):
            assert scene.get("t") == scene.coefficients.timesteps[k], "t"
            scene.draw_velocities()
            scene.solver.step(k, bool(guided >> k & 1), scene.stream)
            scene.reference_step(k, bool(guided >> k & 1))
            scene.check_state()
    assert not scene.get("findings").any(), "findings"
    scene.close()


def check_findings(cuda: Any, library: KernelLibrary) -> None:
    """One wrong number, at either end, anywhere in a warp, in either branch; and thousands of them."""
    scene = SolverScene(cuda, library, (8, 3, 5, 9), (7, 9), steps=2)
    last = scene.layout.action_offset + scene.layout.action_count - 1
    for branch, bit in (("v_cond", 1), ("v_uncond", 2)):
        for element in (0, 1, 127, 128, scene.layout.vision_count - 1, scene.layout.action_offset, last):
            for value in (float("nan"), float("inf"), float("-inf")):
                scene.begin()
                scene.draw_velocities()
                scene.host[branch][element] = value
                scene.put(branch)
                scene.solver.step(1, True, scene.stream)
                scene.solver.fetch_findings(scene.stream)
                scene.stream.synchronize()
                assert scene.solver.findings() == [0, bit], (branch, element, value)
    scene.begin()
    scene.draw_velocities(damage=0.5)
    scene.solver.step(0, True, scene.stream)
    assert scene.get("findings").tolist() == [3, 0]
    scene.close()


def check_graph(cuda: Any, library: KernelLibrary) -> None:
    """A captured loop on new contents of the buffers, three times."""
    scene = SolverScene(cuda, library, (48, 3, 10, 11), (9, 64), steps=4, raw_dim=8)
    guided = (True, True, False, False)

    def loop() -> None:
        scene.solver.begin(scene.stream)
        for k in range(4):
            scene.solver.step(k, guided[k], scene.stream)
        scene.solver.fetch_findings(scene.stream)

    loop()
    scene.stream.synchronize()
    graph = cuda.capture(scene.stream, loop)
    for _ in range(3):
        scene.host["noise"][:] = scene.random.standard_normal(scene.layout.noise_count)
        scene.put("noise")
        scene.draw_velocities()
        graph.launch(scene.stream)
        scene.numpy.reset(scene.inputs, scene.host["noise"])
        scene.reference.reset()
        for k in range(4):
            scene.reference_step(k, guided[k])
        scene.check_state()
        assert scene.solver.findings() == [0] * 4
    graph.close()
    scene.close()


def check_cameras(cuda: Any, library: KernelLibrary, case: Any) -> None:
    _, sources, content, canvas = case
    frames = {name: random_frame(spec, seed) for seed, (name, spec) in enumerate(sources.items())}
    got, missing = ingested(cuda, library, sources, frames, content, canvas)
    assert missing == tuple(name for name in VIEW_NAMES if name not in frames)
    expected = reference({name: rgb_of(sources[name], frame) for name, frame in frames.items()}, content, canvas)
    assert (got == expected).all(), f"{(got != expected).sum()} of {got.size} values differ"


def check_image(cuda: Any, library: KernelLibrary, size: Any, content: Any, canvas: Any) -> None:
    spec = FrameSpec(*size, pitch_bytes=3 * size[1] + 1)
    frame = random_frame(spec, 1)
    got = ingested_image(cuda, library, spec, frame, content, canvas)
    expected = normalise(pad_canvas(resize_bilinear(rgb_of(spec, frame), content), canvas))
    assert (got == expected).all(), f"{(got != expected).sum()} of {got.size} values differ"


def check_ledger(cuda: Any) -> None:
    """After all of the above, nothing but pinned arrays is held."""
    held = {purpose: nbytes for purpose, nbytes in cuda.ledger.items() if nbytes and "pinned" not in purpose}
    assert not held, held


def checks(cuda: Any, library: KernelLibrary) -> dict[str, Callable[[], None]]:
    found: dict[str, Callable[[], None]] = {}
    for shape in SOLVER_SHAPES:
        for guided in (0, 0b0110, 0b11111111):
            vision, action, steps, order = shape
            name = f"solver {vision} {action}, {steps} steps of order {order}, guided {guided:b}"
            found[name] = lambda s=shape, g=guided: check_solver(cuda, library, s, g)
    found["findings"] = lambda: check_findings(cuda, library)
    found["captured loop"] = lambda: check_graph(cuda, library)
    for case in CAMERAS:
        found[f"cameras: {case[0]}"] = lambda c=case: check_cameras(cuda, library, c)
    for image in IMAGES:
        found[f"image {image}"] = lambda i=image: check_image(cuda, library, *i)
    found["nothing held"] = lambda: check_ledger(cuda)
    return found


def say(line: dict[str, Any]) -> None:
    """One line of JSON, at once: what comes next may end the process."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Runs every check; 1 if one failed."""
    cuda = open_cuda()
    failed = 0
    with cuda.current():
        library = open_kernels(cuda)
        facts = {"gpu": cuda.facts.name, "provider": cuda.provider, "toolkit": library.record.toolkit}
        say({**facts, "sm": library.record.sm})
        for name, check in checks(cuda, library).items():
            started = time.perf_counter()
            line: dict[str, Any] = {"check": name, "ok": True}
            try:
                check()
            except Exception as error:  # noqa: BLE001  one failure must not hide the others
                failed += 1
                line.update(ok=False, error=f"{type(error).__name__}: {error}", at=traceback.format_exc(limit=-2))
            say({**line, "ms": round(1e3 * (time.perf_counter() - started))})
    cuda.close()
    say({"failed": failed})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
