"""Sizes that the models were trained with, by tier: each tier has one canvas for each shape of picture.

Source: cosmos-framework at 5eee9ed and the checkpoints' resolution field; rows and columns in pixels, multiples of 16.
"""

from __future__ import annotations

from collections.abc import Mapping

from motedge.errors import UsageError

Size = tuple[int, int]
# Tier -> (rows, columns), landscape and square; portrait ones are the transposed
_LANDSCAPE: Mapping[int, tuple[Size, ...]] = {
    256: ((256, 256), (256, 320), (192, 320)),
    480: ((640, 640), (544, 736), (480, 832)),
    720: ((960, 960), (832, 1104), (720, 1280)),
    768: ((1024, 1024), (880, 1184), (768, 1360)),
}
# Tier -> (rows, columns) of which there were images alone, upright
IMAGE_BUCKETS: Mapping[int, tuple[Size, ...]] = {480: ((768, 512),)}
# Of the shapes that a prompt can name; those of IMAGE_BUCKETS are "2,3"
RATIOS = ("1,1", "4,3", "3,4", "16,9", "9,16")


def _with_portrait(sizes: tuple[Size, ...]) -> tuple[Size, ...]:
    return tuple(dict.fromkeys(size for rows, columns in sizes for size in ((rows, columns), (columns, rows))))


BUCKETS: Mapping[int, tuple[Size, ...]] = {tier: _with_portrait(sizes) for tier, sizes in _LANDSCAPE.items()}


def tier_of(size: Size) -> int:
    """The tier that has this canvas (rows, columns); for any other, the one whose canvases are nearest in area."""
    for tier, sizes in BUCKETS.items():
        if size in (*sizes, *IMAGE_BUCKETS.get(tier, ())):
            return tier
    area = size[0] * size[1]
    return min(BUCKETS, key=lambda tier: abs(BUCKETS[tier][-1][0] * BUCKETS[tier][-1][1] - area))


def is_bucket(size: Size) -> bool:
    """Whether models were trained with this canvas (rows, columns)."""
    return is_image_bucket(size) or any(size in sizes for sizes in BUCKETS.values())


def is_image_bucket(size: Size) -> bool:
    """Whether it is a canvas (rows, columns) that models were trained with for images, and not for videos."""
    return any(size in sizes for sizes in IMAGE_BUCKETS.values())


def nearest_bucket(image: Size, tier: int) -> Size:
    """The canvas of a tier, for videos, whose height to width is nearest to an image's (rows, columns).

    Raises:
        UsageError: there is no such tier.
    """
    if tier not in BUCKETS:
        raise UsageError("there is no such tier of resolutions", expected=", ".join(map(str, BUCKETS)), got=tier)
    return min(BUCKETS[tier], key=lambda size: abs(size[0] / size[1] - image[0] / image[1]))


def ratio_name(size: Size) -> str:
    """What a prompt calls the shape of a canvas (rows, columns), such as "16,9"."""
    if is_image_bucket(size):
        return "2,3"
    wanted = size[1] / size[0]

    def distance(name: str) -> float:
        columns, rows = name.split(",")
        return abs(int(columns) / int(rows) - wanted)

    return min(RATIOS, key=distance)
