"""The few calls of libcuda.so.1 that pycuda lacks, by ctypes: names of errors, the stack, foreign streams."""

from __future__ import annotations

import ctypes

# Above the last CUresult of cuda.h, CUDA_ERROR_UNKNOWN = 999
_LAST_RESULT = 1000


class LibCuda:
    """libcuda.so.1, which the process has loaded already when this is made."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self._names: dict[str, str] = {}

    def name_of_text(self, text: str) -> str:
        """The CUresult's name for the driver's description of it, "out of memory"; the text itself if none has it."""
        if not self._names:
            for code in range(1, _LAST_RESULT):
                described = self._said("cuGetErrorString", code)
                # Descriptions of some deprecated codes are those of others: the first one counts
                self._names.setdefault(described, self._said("cuGetErrorName", code))
        return self._names.get(text, text)

    def push(self, context: int) -> None:
        """Puts a context on this thread's stack."""
        self._library.cuCtxPushCurrent_v2(ctypes.c_void_p(context))

    def pop(self) -> None:
        """Takes the top context off this thread's stack; nothing where there is none."""
        popped = ctypes.c_void_p()
        self._library.cuCtxPopCurrent_v2(ctypes.byref(popped))

    def name_of_code(self, code: int) -> str:
        """The CUresult's name."""
        return self._said("cuGetErrorName", code)

    def wait_for_stream(self, stream: int, producer: int) -> int:
        """Makes a stream wait for what another one holds now; returns the CUresult."""
        event, call = ctypes.c_void_p(), self._library
        # CU_EVENT_DISABLE_TIMING
        code = int(call.cuEventCreate(ctypes.byref(event), 2))
        if code == 0:
            code = int(call.cuEventRecord(event, ctypes.c_void_p(producer)))
            code = code or int(call.cuStreamWaitEvent(ctypes.c_void_p(stream), event, 0))
            # The driver keeps it until it has been passed
            call.cuEventDestroy_v2(event)
        return code

    def _said(self, function: str, code: int) -> str:
        text = ctypes.c_char_p()
        if getattr(self._library, function)(code, ctypes.byref(text)) != 0 or text.value is None:
            return ""
        return text.value.decode("utf-8", errors="replace")
