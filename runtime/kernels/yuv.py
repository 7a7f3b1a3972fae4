"""Y'CbCr to RGB in whole numbers: the arithmetic of the camera kernel, and its numpy twin.

R = Y + 2 (1 - Kr) Cr, B = Y + 2 (1 - Kb) Cb, G from Y = Kr R + Kg G + Kb B, with Kr and Kb of the matrix (ITU-R
BT.601-7, BT.709-6). Limited range has luma in 16 to 235 and chroma in 16 to 240 (both recommendations), full range both
in 0 to 255 (JFIF); chroma is around 128. Factors have 20 fractional bits, and there is one rounding, at the end. Each
chroma sample holds for its 2 x 2 pixels. OpenCV's cvtColor (color_yuv.simd.hpp) does the same for BT.601 limited, with
factors of three decimals (1.164, 1.596, ...) and luma below 16 taken as 16: it differs by a grey level here and there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from motedge.runtime.policy.resize import Image

# Kr and Kb of ITU-R BT.601-7 and BT.709-6
MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
BITS = 20


def yuv_factors(matrix: str, full_range: bool) -> tuple[int, int, int, int, int, int]:
    """Black luma, then factors with BITS fractional bits: luma; Cr of red; Cb and Cr of green; Cb of blue."""
    kr, kb = MATRICES[matrix]
    kg = 1 - kr - kb
    luma, chroma = (1.0, 1.0) if full_range else (255 / 219, 255 / 224)
    red, blue = 2 * (1 - kr) * chroma, 2 * (1 - kb) * chroma
    exact = (luma, red, -blue * kb / kg, -red * kr / kg, blue)
    gain, red_cr, green_cb, green_cr, blue_cb = (round(factor * (1 << BITS)) for factor in exact)
    return (0 if full_range else 16), gain, red_cr, green_cb, green_cr, blue_cb


def nv12_to_rgb(luma: Image, chroma: Image, matrix: str = "bt709", full_range: bool = False) -> Image:
    """uint8 luma [rows, columns] and chroma [rows / 2, columns / 2, (Cb, Cr)] -> uint8 RGB [rows, columns, 3]."""
    black, gain, red_cr, green_cb, green_cr, blue_cb = yuv_factors(matrix, full_range)
    wide: NDArray[Any] = chroma.astype(np.int32).repeat(2, axis=0).repeat(2, axis=1) - 128
    cb, cr = wide[..., 0], wide[..., 1]
    y = (luma.astype(np.int32) - black) * gain + (1 << (BITS - 1))
    channels = y + red_cr * cr, y + green_cb * cb + green_cr * cr, y + blue_cb * cb
    return (np.stack(channels, axis=-1) >> BITS).clip(0, 255).astype(np.uint8)
