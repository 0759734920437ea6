"""Image classifiers arranged for inference. Linear maps: see pack.py; a ViT's blocks: also on native code, see native.

Batch normalisation of a model that no longer learns is a map of each channel by itself: it is folded into the convolution
before it (Jacob et al. 2018, section 3.2). Where oneDNN's fused operators are there, the convolution also adds the residual
and applies ReLU before it writes. They are private to PyTorch: tried out once and, if absent or wrong, done without.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tripel.decode.native import FirstOf, NativeStack, native_stack
from tripel.decode.pack import packed, twin_of
from tripel.decode.prepare import Engine, Precision
from tripel.errors import DeviceError
from tripel.models.config import ViTConfig
from tripel.models.vision import VisionModel, VisionTransformer
from tripel.nn.mixer import Taps
from tripel.nn.resnet import BatchNorm, ConvNorm, ResidualBlock, ResidualStages

TOGETHER = 1 << 22
"""Numbers of a ViT's widest layer that are computed together by PyTorch: what lies between two layers then stays in the
cache, and its memory is not given back to the system and asked for again at every operation."""

PACK_FROM = 1 << 12
"""Linear weights with fewer numbers stay plain. A picture alone is dozens of rows, for which packing small ones pays."""

Activation = Callable[[Tensor], Tensor]


def prepare_images(model: VisionModel, engine: Engine = "auto", precision: Precision = "float32") -> VisionModel:
    """A classifier whose features are the model's, sooner, for weights and statistics that stay as they are now.

    engine: as for prepare; only the blocks of a ViT of attention mixers have compiled code. precision: of the products; int8
    needs the compiled code and rounds weights and inputs to 8 bits. Hidden states, and the head, are of the model's type.
    Raises DeviceError when `native`, or int8, is asked for and cannot be had.
    """
    if engine == "plain":
        return model
    with torch.inference_mode(False), torch.no_grad():
        same = twin_of(model, lambda _: None).eval()
        blocks = None
        if isinstance(same, VisionTransformer) and engine in ("auto", "native"):
            blocks = native_stack(same.config, same.config.mixer, same.encoder, precision)
        if blocks is None and (engine == "native" or precision == "int8"):
            raise _no_native(model, precision)
        return PreparedVision(same, blocks, half=precision == "bfloat16")


class PreparedVision(VisionModel):
    """What prepare_images returns. Taps see the model itself, in its own precision.

    blocks: what computes the blocks of a ViT, or None. half: all else but the head in bfloat16.
    """

    def __init__(self, model: VisionModel, blocks: NativeStack | None, *, half: bool) -> None:
        super().__init__()
        self.config, self.vocabulary = model.config, model.vocabulary
        self.model, self.head = model, model.head
        body = twin_of(model, _folded)
        body.head = None  # type: ignore[assignment]
        if blocks is not None:
            body.encoder = blocks  # type: ignore[assignment]
        elif half:
            body = copy.deepcopy(body).to(torch.bfloat16)
        weight = self.head.linear.weight
        self.dtype, on_cpu = weight.dtype, weight.device.type == "cpu"
        self.body = twin_of(body, _packed) if on_cpu else body
        self.of_class_token = None
        if blocks is not None and model.config.pool == "cls":
            self.of_class_token = twin_of(self.body, lambda module: FirstOf(blocks) if module is blocks else None)
        self.together = None
        if on_cpu and blocks is None and isinstance(model.config, ViTConfig):
            self.together = TOGETHER // max(model.config.d_model, model.config.d_ff) * model.config.patch_size**2
        self.eval()

    def features(self, pixels_BCHW: Tensor, taps: Taps | None = None) -> Tensor:
        """As of the model, which also answers where a gradient of the pixels is wanted."""
        if not self._takes(pixels_BCHW, taps):
            return self.model.features(pixels_BCHW, taps)
        return self._features(self.body, pixels_BCHW)

    def forward(self, pixels_BCHW: Tensor, taps: Taps | None = None) -> Tensor:
        """As of the model. Where a class token stands for the picture, native code computes no other in the last block."""
        if self.of_class_token is None or not self._takes(pixels_BCHW, taps):
            return super().forward(pixels_BCHW, taps)
        return self.logits(self.pooled(self._features(self.of_class_token, pixels_BCHW)))

    @staticmethod
    def _takes(pixels_BCHW: Tensor, taps: Taps | None) -> bool:
        return taps is None and not pixels_BCHW.requires_grad and len(pixels_BCHW) > 0

    def _features(self, body: VisionModel, pixels_BCHW: Tensor) -> Tensor:
        B, _, H, W = pixels_BCHW.shape
        size = B if self.together is None else max(1, self.together // max(1, H * W))
        parts = [body.features(part) for part in pixels_BCHW.split(size)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(self.dtype)


class FoldedConv(nn.Module):
    """activation(W * x + b + other): a convolution with the norm after it."""

    def __init__(self, layer: ConvNorm, activation: Activation | None = None) -> None:
        super().__init__()
        norm, weight = layer.norm, layer.conv.weight.double()
        assert isinstance(norm, BatchNorm)
        scale_C = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        bias_C = norm.bias.double() - scale_C * norm.running_mean.double()
        weight = (weight * scale_C[:, None, None, None]).to(layer.conv.weight.dtype, memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias_C = nn.Parameter(bias_C.to(weight.dtype), requires_grad=False)
        stride, padding = layer.conv.stride, layer.conv.padding
        assert not isinstance(padding, str)
        self.stride, self.padding, self.activation = list(stride), list(padding), activation

    @property
    def dtype(self) -> torch.dtype:
        """That of pictures."""
        return self.weight.dtype

    def forward(self, x_BCHW: Tensor, other_BCHW: Tensor | None = None) -> Tensor:
        y_BCHW = F.conv2d(x_BCHW, self.weight, self.bias_C, self.stride, self.padding)
        y_BCHW = y_BCHW if other_BCHW is None else y_BCHW.add_(other_BCHW)
        return y_BCHW if self.activation is None else self.activation(y_BCHW)


class PackedConv(nn.Module):
    """A FoldedConv with its weight as the kernels want it; ReLU and sum are the convolution's own."""

    def __init__(self, conv: FoldedConv) -> None:
        super().__init__()
        self.dtype = conv.dtype
        self.weight = _reorder(conv.weight.detach(), conv.padding, conv.stride)
        self.bias_C, self.stride, self.padding = conv.bias_C.detach(), conv.stride, conv.padding
        self.fused = "relu" if conv.activation is torch.relu_ else "none"
        self.activation = None if conv.activation is torch.relu_ else conv.activation

    def forward(self, x_BCHW: Tensor, other_BCHW: Tensor | None = None) -> Tensor:
        """other_BCHW is overwritten."""
        y_BCHW = _convolution(x_BCHW, other_BCHW, self.weight, self.bias_C, self.padding, self.stride, self.fused)
        return y_BCHW if self.activation is None else self.activation(y_BCHW)


class FoldedBlock(nn.Module):
    """A ResidualBlock of folded convolutions; it overwrites its input where it has no convolution for the shortcut."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FoldedConv(layer, block.activation) for layer in _conv_norms(block.layers))
        self.shortcut = None if block.shortcut is None else FoldedConv(block.shortcut)

    def forward(self, x_BCHW: Tensor, taps: Taps | None = None) -> Tensor:
        assert taps is None
        other_BCHW = x_BCHW if self.shortcut is None else self.shortcut(x_BCHW)
        for layer in self.layers[:-1]:
            x_BCHW = layer(x_BCHW)
        return self.layers[-1](x_BCHW, other_BCHW)  # type: ignore[no-any-return]


@cache
def conv_packing_works(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has the fused convolutions and they compute what F.conv2d computes."""
    try:
        generator = torch.Generator().manual_seed(0)
        shapes = ((2, 16, 6, 6), (2, 32, 3, 3), (32, 16, 3, 3), (32,))
        x, other, weight, bias = (torch.randn(*shape, generator=generator).to(dtype) for shape in shapes)
        x, other, weight = (t.to(memory_format=torch.channels_last) for t in (x, other, weight))
        plain = F.conv2d(x.float(), weight.float(), bias.float(), 2, 1)
        blocked = _reorder(weight, [1, 1], [2, 2])
        atol, added = 1e-4 if dtype == torch.float32 else 0.2, plain + other.float()
        for unary, after in (("none", torch.clone), ("relu", torch.relu)):
            for residual, expected in ((None, plain), (other.clone(), added)):
                y = _convolution(x, residual, blocked, bias, [1, 1], [2, 2], unary)
                if not torch.allclose(y.float(), after(expected), atol=atol, rtol=0.02):
                    return False
        return True
    except Exception:  # a private operator may vanish or change in any way
        return False


def _convolution(
    x_BCHW: Tensor,
    other_BCHW: Tensor | None,
    weight: Tensor,
    bias_C: Tensor,
    padding: list[int],
    stride: list[int],
    unary: str,
) -> Tensor:
    """unary(weight * x + bias), or with other added before unary, which then is where the result lies."""
    operators, form = torch.ops.mkldnn, (weight, bias_C, padding, stride, [1, 1], 1)
    if other_BCHW is None:
        return operators._convolution_pointwise.default(x_BCHW, *form, unary, [], "")
    after = None if unary == "none" else unary
    return operators._convolution_pointwise_.binary(other_BCHW, x_BCHW, *form, "add", None, after, [], None)


def _reorder(weight: Tensor, padding: list[int], stride: list[int]) -> Tensor:
    return torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, [1, 1], 1, None)


def _folded(module: nn.Module) -> nn.Module | None:
    """What stands for a module in a twin without batch norms; None for one that is copied, part by part."""
    if isinstance(module, ConvNorm) and _foldable([module]):
        return FoldedConv(module)
    if isinstance(module, ResidualBlock) and _foldable(_conv_norms(module.layers)):
        return FoldedBlock(module)
    if isinstance(module, ResidualStages) and _foldable([module.stem]):
        twin = twin_of(module, _folded)
        twin.stem, twin.activation = FoldedConv(module.stem, module.activation), _nothing  # type: ignore[assignment]
        return twin
    return None


def _packed(module: nn.Module) -> nn.Module | None:
    if isinstance(module, NativeStack):
        return module
    if isinstance(module, FoldedConv):
        return PackedConv(module) if conv_packing_works(module.dtype) else module
    return packed(module, least=PACK_FROM)


def _foldable(layers: list[ConvNorm]) -> bool:
    return all(isinstance(layer.norm, BatchNorm) for layer in layers)


def _conv_norms(layers: nn.ModuleList) -> list[ConvNorm]:
    return [layer for layer in layers if isinstance(layer, ConvNorm)]


def _nothing(x: Tensor) -> Tensor:
    return x


def _no_native(model: VisionModel, precision: Precision) -> DeviceError:
    return DeviceError(
        "native code cannot be used here",
        given=f"{model.config.kind} on {model.head.linear.weight.device}, precision {precision}",
        expected="a vit of attention mixers, on the CPU, a C++ compiler (c++, g++ or clang++), a cache folder to write to",
        mend="install a compiler, or choose the engine torch with precision float32 or bfloat16",
    )
