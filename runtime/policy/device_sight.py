"""Which way an observation's images take to the device: one kernel over the cameras' frames, or numpy."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Optional, Union

import numpy as np

from motedge.runtime.cuda import Cuda, DeviceMemory, Stream
from motedge.runtime.cuda.frames import DeviceFrame
from motedge.runtime.cuda.interface import ALIGNMENT_BYTES
from motedge.runtime.device.image_encoder import ImageEncoder
from motedge.runtime.engine import Array
from motedge.runtime.kernels import KernelLibrary
from motedge.runtime.kernels.frame_spec import FrameSpec
from motedge.runtime.kernels.ingest import CameraIngest, ImageIngest
from motedge.runtime.policy.device_tick import HostSight, Sight
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.serving_protocol import ServingProtocol
from motedge.runtime.policy.shape import PolicyShape
from motedge.runtime.policy.views import COMPOSED_SIZE, VIEW_NAMES

# Sets of cameras whose filter tables are kept; a robot has one, and another one while a camera is lost
_KEPT = 4

Specs = tuple[tuple[str, FrameSpec], ...]


def make_sight(
    cuda: Cuda,
    kernels: Optional[KernelLibrary],
    encoder: ImageEncoder,
    shape: PolicyShape,
    protocol: ServingProtocol,
    stream: Stream,
) -> Sight:
    """The kernel's way where there are kernels that know the embodiment's pictures, else numpy's."""
    if kernels is None or not protocol.kernels:
        return HostSight(encoder, shape, protocol)
    return KernelSight(cuda, kernels, encoder, shape, stream)


class KernelSight:
    """A `Sight`: frames of the host are uploaded as they are, those on the GPU are read where they lie; one kernel
    composes, scales, pads and normalises them, bit for bit as numpy does it."""

    def __init__(
        self, cuda: Cuda, kernels: KernelLibrary, encoder: ImageEncoder, shape: PolicyShape, stream: Stream
    ) -> None:
        self._cuda, self._kernels, self._encoder, self._shape = cuda, kernels, encoder, shape
        self._image = ImageIngest(cuda, kernels, FrameSpec(*COMPOSED_SIZE), shape.content, shape.canvas, stream)
        self._cameras: OrderedDict[Specs, CameraIngest] = OrderedDict()
        self._frames: Optional[DeviceMemory] = None
        self._staging: Array = cuda.pinned((1,), np.uint8)

    def see(self, observation: Observation, stream: Stream) -> tuple[str, ...]:
        """See `Sight.see`. Frames on the GPU must stay as they are until the tick is done."""
        # Staging may still be on its way up, if the last observation was never acted on
        stream.synchronize()
        if observation.image is not None:
            addresses = self._upload({"image": observation.image}, stream)
            self._image.enqueue(addresses["image"], self._encoder.canvas_pointer, stream)
            return ()
        views: Mapping[str, Union[Array, DeviceFrame]] = observation.views or {}
        specs = tuple((name, frame_spec(views[name])) for name in VIEW_NAMES if name in views)
        cameras = self._cameras_for(specs, stream)
        addresses = self._upload({n: v for n, v in views.items() if not isinstance(v, DeviceFrame)}, stream)
        for name, view in views.items():
            if isinstance(view, DeviceFrame):
                view.wait_on(self._cuda, stream)
                addresses[name] = view.pointer
        return cameras.enqueue(addresses, self._encoder.canvas_pointer, stream)

    def close(self) -> None:
        """See `Sight.close`."""
        while self._cameras:
            self._cameras.popitem()[1].close()
        self._image.close()
        if self._frames is not None:
            self._frames.free()
            self._frames = None

    def _cameras_for(self, specs: Specs, stream: Stream) -> CameraIngest:
        kept = self._cameras.get(specs)
        if kept is None:
            while len(self._cameras) >= _KEPT:
                self._cameras.popitem(last=False)[1].close()
            sources = dict(specs)
            kept = CameraIngest(self._cuda, self._kernels, sources, self._shape.content, self._shape.canvas, stream)
            self._cameras[specs] = kept
        self._cameras.move_to_end(specs)
        return kept

    def _upload(self, images: Mapping[str, Array], stream: Stream) -> dict[str, int]:
        """Enqueues the upload of host images; returns where each will lie."""
        offsets, total = {}, 0
        for name, image in images.items():
            offsets[name] = total
            total += -(-image.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        if not images:
            return {}
        frames = self._room(total)
        for name, image in images.items():
            self._staging[offsets[name] : offsets[name] + image.nbytes] = image.reshape(-1)
        self._cuda.copy(frames.pointer, self._staging.ctypes.data, total, stream)
        return {name: frames.pointer + offset for name, offset in offsets.items()}

    def _room(self, nbytes: int) -> DeviceMemory:
        if self._frames is None or self._frames.nbytes < nbytes:
            if self._frames is not None:
                self._frames.free()
                self._frames = None
            self._frames = self._cuda.allocate(nbytes, "camera frames")
        if self._staging.nbytes < nbytes:
            self._staging = self._cuda.pinned((nbytes,), np.uint8)
        return self._frames


def frame_spec(view: Union[Array, DeviceFrame]) -> FrameSpec:
    """How a view lies in memory; host images are RGB without gaps, as `Observation` keeps them."""
    if isinstance(view, DeviceFrame):
        return FrameSpec(
            view.rows,
            view.columns,
            view.format,
            view.pitch_bytes,
            view.matrix,
            view.full_range,
            view.chroma_offset_bytes,
        )
    return FrameSpec(view.shape[0], view.shape[1])
