"""The packages that files of pictures, videos and sound need: asked for before the long part, or when first used."""

from __future__ import annotations

from typing import Any

from motedge.errors import MissingPackageError


def require_av(purpose: str) -> Any:
    """PyAV.

    Raises:
        MissingPackageError: it is not installed; `purpose` is part of the message, such as "to read videos".
    """
    try:
        import av
    except ImportError as error:
        raise MissingPackageError("av", extra="video", purpose=purpose) from error
    return av


def require_pillow(purpose: str) -> Any:
    """Pillow's module `Image`; as `require_av`."""
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise MissingPackageError("pillow", extra="images", purpose=purpose) from error
    return pillow
