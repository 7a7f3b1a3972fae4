"""Shows how frames of a Jetson's camera reach the policy without leaving the GPU's memory.

    python examples/jetson_camera.py BUNDLE --wrist csi://0 --left csi://1 --instruction "Put the marker in the cup"

Needs a Jetson with jetson-utils (https://github.com/dusty-nv/jetson-utils) and engines built for it. No camera was at
hand: of this, tests run `frame_of` alone. The policy is timed; no robot is moved.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from typing import Any

from motedge.errors import MotedgeError, ObservationError
from motedge.runtime.cuda.dlpack import LEGACY_STREAM
from motedge.runtime.cuda.frames import DeviceFrame, device_frame


def frame_of(image: Any, matrix: str = "bt601", full_range: bool = False) -> DeviceFrame:
    """Takes a jetson-utils `cudaImage` where it lies.

    Cameras deliver NV12; `videoSource` turns it into what `Capture(format=...)` asks for with a kernel on the legacy
    default stream, and says so nowhere: the frame names that stream, so that the policy's waits for it. An NV12 image's
    `__cuda_array_interface__` claims [rows, columns, 3], twice what it holds: its address is taken instead. Which
    matrix and range a sensor has, its driver tells.
    """
    if image.format == "nv12":
        frame = DeviceFrame(
            int(image.ptr), image.height, image.width, "nv12", matrix=matrix, full_range=full_range, owner=image
        )
    elif image.format in ("rgb8", "bgr8"):
        frame = device_frame(image, image.format[:3])
    else:
        fix = 'Capture(format="rgb8")'
        raise ObservationError("the policy takes no such image", expected="nv12, rgb8, bgr8", got=image.format, fix=fix)
    return replace(frame, producer_stream=LEGACY_STREAM)


def run(arguments: argparse.Namespace) -> None:
    """Acts on ten moments and prints how long each took."""
    from jetson_utils import videoSource

    from motedge.runtime.policy import Observation, load_policy

    cameras = {name: videoSource(uri) for name in ("wrist", "left", "right") if (uri := getattr(arguments, name))}
    policy = load_policy(arguments.bundle, engine=arguments.engine)
    try:
        for _ in range(10):
            # The images must stay until act() is done: jetson-utils reuses their memory after some more captures
            images = {name: camera.Capture(format=arguments.format) for name, camera in cameras.items()}
            # A camera that is late is seen as black, and the chunk says so
            views = {name: frame_of(image) for name, image in images.items() if image is not None}
            observation = Observation(
                joint_position=[0.0] * 7, gripper_position=0.0, instruction=arguments.instruction, views=views
            )
            started = time.perf_counter()
            policy.act(observation)
            print(f"{(time.perf_counter() - started) * 1e3:.1f} ms from {', '.join(views)}")
    finally:
        policy.close()


def main() -> int:
    """Parses the command line; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", metavar="BUNDLE")
    for name in ("wrist", "left", "right"):
        parser.add_argument(f"--{name}", metavar="URI", help=f"{name} camera: csi://0, /dev/video0, rtsp://...")
    parser.add_argument("--format", default="nv12", help="what cameras are asked for: nv12 or rgb8 (default nv12)")
    parser.add_argument("--engine", default="tensorrt", help="engine library (default tensorrt)")
    parser.add_argument("--instruction", required=True, help="what the robot should do")
    try:
        run(parser.parse_args())
    except MotedgeError as error:
        print(f"jetson_camera: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
