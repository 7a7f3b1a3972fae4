"""The machine that actions come from, in words: what a recording is held against when it is replayed."""

from __future__ import annotations


def machine_words(engine: str, gpu: int) -> str:
    """The processor, and where the engine runs on a GPU, that."""
    from motedge.doctor.accelerators import gpus
    from motedge.runtime.backends import DEVICE_BACKENDS
    from motedge.runtime.recorder.session import processor_words

    words = processor_words()
    if engine not in DEVICE_BACKENDS:
        return words
    found, _ = gpus()
    return f"{words}, {found[gpu].name if gpu < len(found) else 'GPU'}"
