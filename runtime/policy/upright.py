"""Which side of a picture is up, as a camera noted it beside the pixels."""

from __future__ import annotations

from typing import Any

# EXIF's tag, and the name of Pillow's transposition for each of its values; 1 and unknown ones: none
_ORIENTATION = 0x0112
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def upright(picture: Any) -> Any:
    """A Pillow image turned as its EXIF data say.

    Pillow's own `exif_transpose` writes the other tags anew, and fails at odd ones that no picture depends on.

    Raises:
        struct.error: the EXIF data end too early.
    """
    from PIL import Image as pillow

    turn = _TURNS.get(picture.getexif().get(_ORIENTATION))
    return picture if turn is None else picture.transpose(pillow.Transpose[turn])
