"""transformers' image classifiers with the sizes and weights of ours, for the benchmarks."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from tripel.models.config import ResNetConfig, ViTConfig
from tripel.models.vision import VisionModel
from tripel.nn.attention import AttentionConfig

_VIT = [
    (r"^embedding\.class_token", "vit.embeddings.cls_token"),
    (r"^embedding\.positions\.weight", "vit.embeddings.position_embeddings"),
    (r"^embedding\.stem\.output", "vit.embeddings.patch_embeddings.projection"),
    (r"^encoder\.blocks\.(\d+)\.", r"vit.layers.\1."),
    (r"mixer\.output", "attention.o_proj"),
    (r"mixer_wiring\.norm", "layernorm_before"),
    (r"feed_forward_wiring\.norm", "layernorm_after"),
    (r"feed_forward\.inner", "mlp.fc1"),
    (r"feed_forward\.outer", "mlp.fc2"),
    (r"^encoder\.final_norm", "vit.layernorm"),
    (r"^head\.linear", "classifier"),
]
_RESNET = [
    (r"^stages\.stem\.", "resnet.embedder.embedder."),
    (r"^stages\.stages\.(\d+)\.(\d+)\.", r"resnet.encoder.stages.\1.layers.\2."),
    (r"\.layers\.(\d+)\.(conv|norm)\.", r".layer.\1.\2."),
    (r"\.conv\.", ".convolution."),
    (r"\.norm\.", ".normalization."),
    (r"^head\.linear", "classifier.1"),
]


class Peer(nn.Module):
    """Pixels -> logits by transformers' classifier.

    autocast: bfloat16 by torch.autocast; half: bfloat16 weights. last: channels-last memory.
    """

    def __init__(self, model: VisionModel, *, autocast: bool, half: bool, last: bool) -> None:
        super().__init__()
        classifier = _vit(model) if isinstance(model.config, ViTConfig) else _resnet(model)
        self.classifier = classifier.to(memory_format=torch.channels_last) if last else classifier
        if half:
            self.classifier.bfloat16()
        self.autocast, self.half, self.last = autocast, half, last

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        if self.half:
            pixels_BCHW = pixels_BCHW.bfloat16()
        if self.last:
            pixels_BCHW = pixels_BCHW.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            return self.classifier(pixel_values=pixels_BCHW).logits  # type: ignore[no-any-return]


def _vit(model: VisionModel) -> nn.Module:
    from transformers import ViTConfig as TheirConfig
    from transformers import ViTForImageClassification

    config = model.config
    assert isinstance(config, ViTConfig) and isinstance(config.mixer, AttentionConfig)
    theirs = ViTForImageClassification(
        TheirConfig(
            hidden_size=config.d_model,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.mixer.n_heads,
            intermediate_size=config.d_ff,
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_channels=config.channels,
            num_labels=len(model.vocabulary.labels),
            layer_norm_eps=config.norm_eps,
        )
    )
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if ".query_key_value." in name:
            for part, letter in zip(tensor.chunk(3), "qkv", strict=True):
                tensors[name.replace("mixer.query_key_value", f"attention.{letter}_proj")] = part
        else:
            tensors[name] = tensor
    return _filled(theirs, tensors, _VIT)


def _resnet(model: VisionModel) -> nn.Module:
    from transformers import ResNetConfig as TheirConfig
    from transformers import ResNetForImageClassification

    config = model.config
    assert isinstance(config, ResNetConfig)
    theirs: Any = ResNetForImageClassification(
        TheirConfig(
            num_channels=config.channels,
            embedding_size=config.stem_width,
            hidden_sizes=list(config.widths),
            depths=list(config.depths),
            layer_type=config.block,
            num_labels=len(model.vocabulary.labels),
        )
    )
    if config.stem == "small":
        stem = theirs.resnet.embedder
        stem.embedder.convolution = nn.Conv2d(config.channels, config.stem_width, 3, padding=1, bias=False)
        stem.pooler = nn.Identity()
    return _filled(theirs, dict(model.state_dict()), _RESNET)


def _filled(theirs: nn.Module, tensors: dict[str, Tensor], rules: list[tuple[str, str]]) -> nn.Module:
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor.reshape(shapes[name])
    missing, unexpected = theirs.load_state_dict(renamed, strict=False)
    assert not unexpected and all("num_batches" in name for name in missing), (missing, unexpected)
    return theirs
