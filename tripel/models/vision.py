"""Image classifiers: pixels in, scores of classes out. Both families have one outer contract:

features(pixels_BCHW) -> h_BND      one vector for each of N places of the picture
pooled(h_BND) -> h_BD               one for the picture
head(h_BD) -> logits_BC
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from tripel.errors import InputError
from tripel.models.config import ImageVocabulary, ResNetConfig, ViTConfig
from tripel.nn.heads import ClassHead, pooled
from tripel.nn.mixer import Taps, scoped
from tripel.nn.patches import PatchEmbedding
from tripel.nn.resnet import ResidualStages
from tripel.nn.stack import Stack


class VisionModel(nn.Module):
    """What both families share. pixels_BCHW: (pixel / 255 - mean) / std, with vocabulary's mean and std."""

    config: ViTConfig | ResNetConfig
    vocabulary: ImageVocabulary
    head: ClassHead

    @abstractmethod
    def features(self, pixels_BCHW: Tensor, taps: Taps | None = None) -> Tensor:
        """(B, N, D): a vector for every place. Raises InputError for pictures that the model cannot take."""

    def pooled(self, h_BND: Tensor) -> Tensor:
        """The vector (B, D) that stands for each picture, as config.pool says."""
        return pooled(h_BND, None, self.config.pool)

    def forward(self, pixels_BCHW: Tensor, taps: Taps | None = None) -> Tensor:
        """Logits (B, C) of the classes."""
        y_BC = self.logits(self.pooled(self.features(pixels_BCHW, taps)))
        if taps is not None:
            taps("logits", y_BC)
        return y_BC

    def logits(self, h_BD: Tensor) -> Tensor:
        """The head on the vectors of pictures."""
        return self.head(h_BD)  # type: ignore[no-any-return]

    def asked(self, inputs: dict[str, Any], rows_N: Tensor | None) -> Tensor:
        """What the head's matrix is multiplied with, (B, D): one class is asked for each picture."""
        del rows_N
        return self.head.dropout(self.pooled(self.features(**inputs)))  # type: ignore[no-any-return]

    def head_parameters(self) -> tuple[Tensor, Tensor | None]:
        """The head's matrix (C, D) and bias, for a loss that fuses them with the softmax."""
        return self.head.linear.weight, self.head.linear.bias

    def _require_fit(self, pixels_BCHW: Tensor, multiple: int) -> None:
        _, C, H, W = pixels_BCHW.shape
        if self.config.channels != C or H % multiple or W % multiple:
            raise InputError(
                "the model cannot take pictures of this form",
                given=f"{C} channel(s), {H} x {W} pixels",
                expected=f"{self.config.channels} channel(s), {self.config.image_size} x {self.config.image_size} pixels"
                + (f", or other multiples of {multiple}" if multiple > 1 else ", or another size"),
                mend="convert and resize them; `tripel classify` does",
            )


class VisionTransformer(VisionModel):
    """An encoder over patches (Dosovitskiy et al. 2021)."""

    config: ViTConfig

    def __init__(
        self,
        config: ViTConfig,
        vocabulary: ImageVocabulary,
        embedding: PatchEmbedding,
        encoder: Stack,
        head: ClassHead,
    ) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.embedding, self.encoder, self.head = embedding, encoder, head

    def features(self, pixels_BCHW: Tensor, taps: Taps | None = None) -> Tensor:
        """(B, T, D), T the patches row by row, after the class token if there is one. Pictures may be of another size."""
        self._require_fit(pixels_BCHW, self.config.patch_size)
        x_BTD = self.embedding(pixels_BCHW)
        if taps is not None:
            taps.scope("encoder")("embed", x_BTD)
        return self.encoder(x_BTD, taps=scoped(taps, "encoder"))  # type: ignore[no-any-return]


class ResNet(VisionModel):
    """A residual convolutional network (He et al. 2016)."""

    config: ResNetConfig

    def __init__(
        self, config: ResNetConfig, vocabulary: ImageVocabulary, stages: ResidualStages, head: ClassHead
    ) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.stages, self.head = stages, head

    def features(self, pixels_BCHW: Tensor, taps: Taps | None = None) -> Tensor:
        """(B, h * w, D), the places of the last stage row by row."""
        self._require_fit(pixels_BCHW, 1)
        h_BDhw = self.stages(pixels_BCHW, taps=scoped(taps, "stages"))
        return h_BDhw.permute(0, 2, 3, 1).flatten(1, 2)  # type: ignore[no-any-return]


def normalised(pixels_BCHW: Tensor, vocabulary: ImageVocabulary) -> Tensor:
    """Pixels of 0 to 255 as a model wants them, float32."""
    mean, std = (torch.tensor(x, device=pixels_BCHW.device)[:, None, None] for x in (vocabulary.mean, vocabulary.std))
    return torch.sub(pixels_BCHW.float() / 255, mean).div_(std)
