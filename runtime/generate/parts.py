"""What a generator is put together from, whichever machine part its graphs run on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Optional

from motedge.bundle import Contract
from motedge.runtime.engine import Engine
from motedge.runtime.generate.generator import Closed, Loop
from motedge.runtime.sound import SoundDecoder
from motedge.runtime.vae import VideoDecoder, VideoEncoder


@dataclass(frozen=True)
class Parts:
    """Opened engines around a loop; the openers load more when first called."""

    loop: Loop
    # Of gen_step, or gen_step_sound
    gen_contract: Contract
    image_encoder: Engine
    open_encoder: Callable[[], VideoEncoder]
    open_decoder: Callable[[], VideoDecoder]
    # None: without sound
    open_sound: Optional[Callable[[], SoundDecoder]]
    # In the order in which they are closed, the image encoder among them
    engines: Sequence[Closed]
    # Of a GPU, by purpose
    memory_bytes: Callable[[], dict[str, int]] = dict
