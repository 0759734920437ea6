"""Recipes of small image classifiers and made-up pictures to compare them on."""

import struct

import numpy as np
import yaml

SIDE = 8
MODELS = {
    "vit": {
        "kind": "vit", "patch_size": 2, "n_layers": 1, "d_model": 16, "d_ff": 32, "pool": "mean",
        "mixer": {"kind": "attention", "n_heads": 2},
    },
    "cnn": {"kind": "resnet", "stem": "small", "stem_width": 8, "depths": [1, 1], "widths": [8, 16], "n_groups": 4},
}  # fmt: skip


def write_pictures(folder, n_each=40, seed=1):
    """The name of a pair of IDX files: pictures of four classes, brighter to one side each, under noise."""
    rng = np.random.default_rng(seed)
    ramp = np.broadcast_to(np.linspace(40, 200, SIDE), (SIDE, SIDE))
    fields = np.stack([ramp, ramp[:, ::-1], ramp.T, ramp.T[::-1]])
    classes = rng.permutation(np.repeat(np.arange(4), n_each)).astype(np.uint8)
    pixels = (fields[classes] + rng.normal(0, 40, (len(classes), SIDE, SIDE))).clip(0, 255).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for ending, values in (("images-idx3", pixels), ("labels-idx1", classes)):
        header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
        (folder / f"made-{ending}-ubyte").write_bytes(header + values.tobytes())
    return folder / "made"


def write_image_recipe(folder, name, pictures, *, model=None, **sections):
    """A recipe of one of MODELS as a file, on these pictures."""
    tree = {
        "task": {"kind": "classification"},
        "data": {"train": str(pictures), "valid_share": 0.25},
        "model": {"image_size": SIDE, "channels": 1, **MODELS.get(name, MODELS["vit"]), **(model or {})},
        "optim": {"lr": 1e-2, "warmup_steps": 2, "schedule": "cosine"},
        "train": {"tokens_per_step": 16, "micro_tokens": 16, "log_every": 2, "precision": "float32"},
    }  # fmt: skip
    for section, settings in sections.items():
        tree[section] = {**tree[section], **settings}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path
