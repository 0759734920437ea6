"""Small image classifiers as transformers and timm write them."""

from __future__ import annotations

import re

import torch
from torch import Tensor
from transformers import ResNetConfig as TheirResNet
from transformers import ResNetForImageClassification, ViTForImageClassification
from transformers import ViTConfig as TheirViT

LABELS = {0: "bird", 1: "fish", 2: "worm"}
NAMED = {"id2label": LABELS, "label2id": {label: number for number, label in LABELS.items()}}
VITS = {
    "plain": {"layer_norm_eps": 1e-6},
    "grey, tanh": {"num_channels": 1, "hidden_act": "gelu_new"},
    "without biases of attention": {"qkv_bias": False},
}
RESNETS = {
    "basic": {"layer_type": "basic", "depths": [1, 2]},
    "bottleneck": {"layer_type": "bottleneck", "depths": [2, 1]},
    "grey, stride in the first": {"downsample_in_bottleneck": True, "num_channels": 1, "depths": [1, 1]},
}
THEIRS = [("vit", name) for name in VITS] + [("resnet", name) for name in RESNETS]


def their_model(kind: str, name: str, seed: int = 0) -> torch.nn.Module:
    """A classifier of pictures of 16 x 16 with LABELS; its weights, norms and counts away from zeros and ones."""
    torch.manual_seed(seed)
    if kind == "vit":
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
        model = ViTForImageClassification(TheirViT(**sizes, image_size=16, patch_size=4, **NAMED, **VITS[name]))
    else:
        settings = TheirResNet(embedding_size=8, hidden_sizes=[16, 32], **NAMED, **RESNETS[name])
        model = ResNetForImageClassification(settings)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return model.eval()


def pictures(channels: int, size: int = 16, n: int = 3) -> Tensor:
    """Normalised pictures."""
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(3))


def logits(model: torch.nn.Module, x: Tensor) -> Tensor:
    """Of a model of theirs, or of ours."""
    with torch.inference_mode():
        found = model(x)
    return found if isinstance(found, torch.Tensor) else found.logits


def to_timm(kind: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors under timm's names, written from timm's source code (vision_transformer.py, resnet.py)."""
    renamed = {}
    if kind == "vit":
        plain = {
            "vit.embeddings.cls_token": "cls_token", "vit.embeddings.position_embeddings": "pos_embed",
            "vit.embeddings.patch_embeddings.projection.": "patch_embed.proj.", "vit.layernorm.": "norm.",
            "classifier.": "head.", "layernorm_before": "norm1", "layernorm_after": "norm2",
            "attention.output.dense": "attn.proj", "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2",
            "vit.encoder.layer.": "blocks.",
        }  # fmt: skip
        for name, tensor in tensors.items():
            if match := re.fullmatch(r"vit\.encoder\.layer\.(\d+)\.attention\.attention\.query\.(weight|bias)", name):
                parts = [tensors[name.replace("query", x)] for x in ("query", "key", "value")]
                renamed[f"blocks.{match[1]}.attn.qkv.{match[2]}"] = torch.cat(parts)
            elif "attention.attention" not in name:
                for old, new in plain.items():
                    name = name.replace(old, new)
                renamed[name] = tensor
        return renamed
    for name, tensor in tensors.items():
        name = re.sub(r"resnet\.embedder\.embedder\.convolution", "conv1", name)
        name = re.sub(r"resnet\.embedder\.embedder\.normalization", "bn1", name)
        name = re.sub(r"resnet\.encoder\.stages\.(\d)\.layers\.", lambda m: f"layer{int(m[1]) + 1}.", name)
        name = re.sub(r"layer\.(\d)\.convolution", lambda m: f"conv{int(m[1]) + 1}", name)
        name = re.sub(r"layer\.(\d)\.normalization", lambda m: f"bn{int(m[1]) + 1}", name)
        name = name.replace("shortcut.convolution", "downsample.0").replace("shortcut.normalization", "downsample.1")
        renamed[name.replace("classifier.1", "fc")] = tensor
    return renamed
