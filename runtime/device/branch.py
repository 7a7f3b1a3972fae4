"""One branch of classifier-free guidance on the device: a context of gen_step for one prompt length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.device.buffers import WEIGHTS, TickBuffers
from motedge.runtime.device.planned import PlannedBlock
from motedge.runtime.device.staging import Staging
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.device_engine import DeviceEngine
from motedge.runtime.engine import FloatArray


class DeviceBranch:
    """Everything is bound when it is made; running it is one `enqueue`."""

    def __init__(
        self,
        cuda: Cuda,
        gen: DeviceEngine,
        dims: Mapping[str, int],
        buffers: TickBuffers,
        workspace: Workspace,
        rotary: tuple[FloatArray, FloatArray],
        staging: Staging,
        name: str,
        stream: Stream,
    ) -> None:
        """Makes the context, uploads the rotary tables and waits for that.

        Args:
            cuda: where.
            gen: engine of gen_step or gen_step_sound.
            dims: T, A, U, N; with sound, J.
            buffers: state, velocities, masks, slots.
            workspace: shared activations.
            rotary: cos and sin, fp32 [N, R] each, which shift with U.
            staging: for the upload.
            name: "cond" or "uncond".
            stream: for it too.
        """
        self._rotary: Optional[PlannedBlock] = None
        self._workspace = workspace
        self._context = gen.context(dims)
        try:
            workspace.lend(self._context)
            self._rotary = PlannedBlock(
                cuda, {"cos": rotary[0].nbytes, "sin": rotary[1].nbytes}, "rotary tables of gen_step"
            )
            for table, value in zip(("cos", "sin"), rotary):
                staging.upload(self._rotary.pointer(table), value, stream)
                self._context.bind(table, self._rotary.pointer(table))
            self._bind(buffers, name)
        except BaseException:
            self.close()
            raise

    @property
    def capture_refusal(self) -> Optional[str]:
        """Why it can't be captured; None where it can."""
        return self._context.capture_refusal

    def enqueue(self, stream: Stream) -> None:
        """One forward: the velocities of this branch."""
        self._context.enqueue(stream)

    def follow_workspace(self) -> None:
        """Takes the workspace where it lies now: others may have moved it since. Nothing may be running on it."""
        self._workspace.lend(self._context)

    def close(self) -> None:
        """Frees context and tables; harmless when repeated."""
        self._context.close()
        if self._rotary is not None:
            self._rotary.free()

    def _bind(self, buffers: TickBuffers, name: str) -> None:
        modalities = ("vision", "action", "sound") if "sound_noisy" in buffers.masks else ("vision", "action")
        addresses = {
            **{modality: buffers.part("state", modality) for modality in modalities},
            **{f"{modality}_velocity": buffers.part(f"v_{name}", modality) for modality in modalities},
            "und_kv": buffers.pointer(f"und_kv_{name}"),
            **{shared: buffers.pointer(shared) for shared in (*buffers.masks, "t", *WEIGHTS)},
        }
        for tensor, address in addresses.items():
            self._context.bind(tensor, address)
