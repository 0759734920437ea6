"""Small image classifiers, as they are built, for pictures of 8 x 8 pixels; and pictures for them."""

import struct
import zlib

import numpy as np
import torch
from PIL import Image

from tripel.models.build import build
from tripel.models.config import ImageVocabulary, ResNetConfig, ViTConfig
from tripel.nn.attention import AttentionConfig

SIDE = 8
LABELS = ("ant", "bee", "cat", "dog", "eel", "fox")


def classifier_model(kind="resnet", channels=1, seed=1, **vocabulary):
    """Its head's weights are large, so that answers differ from picture to picture."""
    torch.manual_seed(seed)
    sides = {"image_size": SIDE, "channels": channels}
    if kind == "resnet":
        config = ResNetConfig(**sides, stem="small", stem_width=4, depths=(1,), widths=(8,))
    else:
        mixer = AttentionConfig(n_heads=2)
        config = ViTConfig(**sides, patch_size=4, n_layers=1, d_model=16, d_ff=32, mixer=mixer)
    statistics = {"mean": (0.3, 0.4, 0.5)[:channels], "std": (0.2, 0.25, 0.3)[:channels]}
    model = build(config, ImageVocabulary(**{"labels": LABELS, **statistics, **vocabulary})).eval()
    with torch.no_grad():
        model.head.linear.weight.normal_()
    return model


def noise(*shape, seed=1):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_noise(folder, n, *shape):
    """So many PNGs, 0.png and so on: their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(n)]
    for number, path in enumerate(paths):
        Image.fromarray(noise(*(shape or (SIDE, SIDE)), seed=number)).save(path)
    return paths


def png(width, height, content=b""):
    """A PNG whose header says so."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", content) + chunk(b"IEND", b"")
