"""Recipes of small models and a made-up text to compare them on."""

import random

import yaml

MODELS = {
    "gpt": {"mixer": {"kind": "attention", "n_heads": 2}, "d_ff": 32},
    "lstm": {"mixer": {"kind": "lstm"}, "positions": "none", "d_ff": 0},
    "conv": {"mixer": {"kind": "conv", "kernel": 3, "dilation": [1, 2]}, "positions": "none", "d_ff": 0},
}
WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "saw",
    "two",
    "dogs",
    "run",
    "over",
    "green",
    "hills",
    "far",
    "away",
]


def write_text(path, n_lines=120, seed=1):
    """Lines in which each word says which comes next, but for a choice now and then."""
    generator = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(n_lines):
            at = generator.randrange(len(WORDS))
            words = [WORDS[(at + i * generator.choice((1, 1, 1, 2))) % len(WORDS)] for i in range(8)]
            file.write(" ".join(words) + ".\n")
    return path


def write_recipe(folder, name, *, model=None, **sections):
    """A recipe of one of MODELS as a file."""
    family = MODELS.get(name, MODELS["gpt"])
    tree = {
        "task": {"kind": "next-token"},
        "data": {"train": "nowhere.txt"},
        "tokenizer": {"kind": "char"},
        "model": {"n_layers": 2, "d_model": 16, "max_len": 16, "dropout": 0.1, **family, **(model or {})},
        "optim": {"lr": 1e-2, "warmup_steps": 2, "schedule": "cosine"},
        "train": {"tokens_per_step": 128, "log_every": 2, "precision": "float32"},
    }  # fmt: skip
    for section, settings in sections.items():
        tree[section] = {**tree[section], **settings}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path
