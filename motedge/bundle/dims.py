"""The letters that stand for tensor dimensions in every contract, docstring and shape comment."""

from __future__ import annotations

LEGEND = {
    "S": "prompt tokens of a prefill",
    "U": "und_len: prompt tokens whose K and V are kept",
    "T": "latent frames",
    "A": "action rows, a leading state row included",
    "N": "generator tokens: T * patch rows * patch columns + A",
    "M": "elements of the flat state: vision, then action, each padded to a multiple of 64",
    "C": "latent channels",
    "h": "latent rows, cropped to the image's content",
    "w": "latent columns, cropped to the image's content",
    "Y": "image rows (pixels) of the padded canvas",
    "X": "image columns (pixels) of the padded canvas",
    "H": "hidden size",
    "L": "layers of a tower",
    "K": "key and value heads",
    "D": "head dimension",
    "R": "rotary frequencies, D / 2",
    "Z": "width of an action row, zero-padded",
}
