"""The letters that stand for tensor dimensions in every contract, docstring and shape comment."""

from __future__ import annotations

LEGEND = {
    "S": "prompt tokens of a prefill",
    "U": "und_len: prompt tokens whose K and V are kept",
    "T": "latent frames",
    "A": "action rows, a leading state row included",
    "N": "generator tokens: T * patch rows * patch columns + A",
    "M": "elements of the flat state: vision, then action, each padded to a multiple of 64",
    "F": "frames of a video: 4 T - 3",
    "J": "sound latents",
    "W": "samples of a waveform, in each channel",
    "Q": "channels of a sound latent",
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
    "V": "vocabulary",
    "P": "slots of the reasoner's K and V buffer",
    "B": "images or video frames of one size",
    "G": "visual tokens of an image, 32 x 32 pixels each",
    "E": "width of the vision encoder",
    "Z": "width of an action row, zero-padded",
}
