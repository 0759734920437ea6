"""What a model is: skeleton, mixers, wiring and the handful of scalars that exact Hugging Face parity needs."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tripel.config import Config
from tripel.nn import AttentionConfig, MixerConfig
from tripel.nn.block import Activation, NormKind, WiringKind
from tripel.nn.embed import PositionKind, SinusoidOrder

Initialisation = Literal["glorot", "gpt2", "bert", "mimetic"]
ConvNorm = Literal["batch", "group"]
HeadKind = Literal["masked-token", "classes", "none"]
Pooling = Literal["cls", "mean", "max"]
Fit = Literal["stretch", "crop"]
Resample = Literal["bilinear", "bicubic"]


class StackConfig(Config):
    """A stack of n_layers equal blocks around one kind of mixer. d_ff: None takes the model's, 0 leaves it out."""

    n_layers: int = Field(default=6, ge=1, le=1000)
    mixer: MixerConfig = AttentionConfig()
    d_ff: int | None = Field(default=None, ge=0, le=1 << 20)


class StackedConfig(Config):
    """What every model of blocks has. d_ff 0: blocks without a feed-forward part. bias: of the feed-forward maps.

    initialisation: `glorot` uniform maps (Glorot & Bengio 2010); `gpt2` normal with deviation 0.02, and 0.02 / sqrt(2
    n_layers) for the maps that write to the residual stream (Radford et al. 2019, section 2.3); `bert` normal with 0.02;
    `mimetic` that, with attention that begins by looking at what is alike (Attention.initialise, CrossAttention's) and
    learned positions that begin as sinusoids.
    variational_dropout: one dropout mask for all positions of a row (Gal & Ghahramani 2016).
    """

    d_model: int = Field(default=512, ge=2, le=65536)
    d_ff: int = Field(default=2048, ge=0, le=1 << 20)
    wiring: WiringKind = "post"
    activation: Activation = "relu"
    norm: NormKind = "layer"
    norm_eps: float = Field(default=1e-5, gt=0)
    bias: bool = True
    positions: PositionKind = "sinusoidal"
    initialisation: Initialisation = "glorot"
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    variational_dropout: bool = False

    def stacks(self) -> dict[str, StackConfig]:
        """The stacks by name: encoder, decoder or both."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _widths_fit(self) -> Self:
        for side, stack in self.stacks().items():
            n_heads = getattr(stack.mixer, "n_heads", 1)
            if self.d_model % n_heads:
                raise ValueError(
                    f"d_model {self.d_model} is not divisible by {side}.mixer.n_heads {n_heads}; "
                    f"use a number of heads that divides it"
                )
            if getattr(stack.mixer, "rotary", False) and self.d_model // n_heads % 2:
                raise ValueError(
                    f"rotary positions turn pairs of coordinates; {side} heads of width {self.d_model // n_heads} are odd"
                )
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"d_model {self.d_model} is odd; sinusoids need an even width")
        return self


class SkeletonConfig(StackedConfig):
    """What every skeleton that reads tokens has. max_len: the positions of a table of them."""

    input: ClassVar[str] = "tokens"
    sinusoid_order: SinusoidOrder = "halves"
    embed_scale: bool = True
    head_bias: bool = False
    max_len: int = Field(default=512, ge=2, le=1 << 20)

    @property
    def skeleton(self) -> str:
        """encoder-decoder, decoder or encoder."""
        return self.kind  # type: ignore[attr-defined,no-any-return]


class EncoderDecoderConfig(SkeletonConfig):
    """Encoder-decoder (Vaswani et al. 2017). Vocabulary sizes come from the tokenizers, not from here.

    tie: `all` one matrix for source, target and head (needs a shared vocabulary); `target` target embedding and head;
    `none` three matrices.
    """

    kind: Literal["encoder-decoder"] = "encoder-decoder"
    encoder: StackConfig = StackConfig()
    decoder: StackConfig = StackConfig()
    tie: Literal["all", "target", "none"] = "all"

    def stacks(self) -> dict[str, StackConfig]:
        """encoder and decoder."""
        return {"encoder": self.encoder, "decoder": self.decoder}

    @model_validator(mode="after")
    def _directions_fit(self) -> Self:
        _require_even(self.encoder.mixer, self.d_model)
        return self


class DecoderConfig(SkeletonConfig):
    """Decoder-only language model (Radford et al. 2018 with attention; Mikolov et al. 2010 with rnn).

    tie: whether the head uses the embedding's matrix (Press & Wolf 2017). max_len: the positions a model with a table of
    positions has, and the length of the sequences it is trained on unless data.context says otherwise.
    """

    kind: Literal["decoder"] = "decoder"
    n_layers: int = Field(default=6, ge=1, le=1000)
    mixer: MixerConfig = AttentionConfig()
    wiring: WiringKind = "pre"
    activation: Activation = "gelu_tanh"
    positions: PositionKind = "learned"
    embed_scale: bool = False
    initialisation: Initialisation = "gpt2"
    tie: bool = True

    def stacks(self) -> dict[str, StackConfig]:
        """The one stack, as decoder."""
        return {"decoder": StackConfig(n_layers=self.n_layers, mixer=self.mixer)}


class EncoderConfig(SkeletonConfig):
    """Encoder that reads both ways (Devlin et al. 2019 with attention). Defaults are BERT's where it has one.

    token_types: segments a text may have (0: no table of them). embedding_norm: a norm after the sum of embeddings.
    head: what the model is asked. `masked-token` every hidden token, after a transform (map, activation, norm) if
    head_transform, on the embedding's matrix if tie; `classes` one of the vocabulary's labels; `none` nothing, vectors only.
    pool: the vector that stands for a text: its first position's (`cls`), the mean or the maximum over positions.
    pooler: a tanh layer on that vector, for heads `classes` and `none`. normalize: vectors of texts are made of length 1
    where they are the answer.
    """

    kind: Literal["encoder"] = "encoder"
    n_layers: int = Field(default=6, ge=1, le=1000)
    mixer: MixerConfig = AttentionConfig()
    wiring: WiringKind = "post"
    activation: Activation = "gelu"
    norm_eps: float = Field(default=1e-12, gt=0)
    positions: PositionKind = "learned"
    embed_scale: bool = False
    head_bias: bool = True
    initialisation: Initialisation = "bert"
    tie: bool = True
    token_types: int = Field(default=2, ge=0, le=1 << 16)
    embedding_norm: bool = True
    head: HeadKind = "masked-token"
    head_transform: bool = True
    pool: Pooling = "cls"
    pooler: bool = True
    normalize: bool = False

    def stacks(self) -> dict[str, StackConfig]:
        """The one stack, as encoder."""
        return {"encoder": StackConfig(n_layers=self.n_layers, mixer=self.mixer)}

    @property
    def has_pooler(self) -> bool:
        """Whether there is a pooler: a model that is asked for hidden tokens has no use for one."""
        return self.pooler and self.head != "masked-token"

    @model_validator(mode="after")
    def _directions_fit(self) -> Self:
        _require_even(self.mixer, self.d_model)
        return self


def _require_even(mixer: Any, d_model: int) -> None:
    n_units = getattr(mixer, "d_hidden", None) or d_model
    if n_units % 2 and hasattr(mixer, "d_hidden"):
        raise ValueError(f"{n_units} hidden units cannot be divided between the encoder's two reading directions")


class Vocabulary(Config):
    """What the model must know of its tokenizers. start_id begins every target; eos_id ends it.

    A language model reads what it writes: its two sizes are one, and start_id stands for the end of an earlier text.
    pad_id is eos_id where no token is for padding alone, as in GPT-2's vocabulary.
    An encoder reads start_id, a text, eos_id; mask_id stands where a token is hidden. labels: of the classes, in order.
    """

    source_size: int = Field(ge=4, le=1 << 24)
    target_size: int = Field(ge=4, le=1 << 24)
    pad_id: int = Field(ge=0)
    eos_id: int = Field(ge=0)
    start_id: int = Field(ge=0)
    mask_id: int | None = Field(default=None, ge=0)
    labels: tuple[str, ...] = ()

    @property
    def padding_id(self) -> int | None:
        """The token that is for padding alone, hence never said nor learnt; None where there is no such token."""
        return None if self.pad_id == self.eos_id else self.pad_id


class ImageConfig(Config):
    """What both families of image classifiers have. image_size: the side of the square that every picture is brought to.
    channels: 1 for grey pictures, 3 for colour."""

    image_size: int = Field(default=224, ge=4, le=4096)
    channels: Literal[1, 3] = 3


class ViTConfig(StackedConfig, ImageConfig):
    """Vision Transformer (Dosovitskiy et al. 2021): an encoder over the patches of a picture. Defaults are ViT-Base's.

    stem: how patches become vectors, `patch` one linear map of each; `conv` strided 3x3 convolutions with norms, as many
    as patch_size halves the picture, their first of stem_width channels (Xiao et al. 2021). positions: `learned` for each
    patch, resampled for pictures of another size; `sinusoidal` in both directions (Beyer et al. 2022). pool: the vector
    that stands for a picture: that of a token for it alone, put before the patches (`cls`), or of all patches.
    """

    kind: Literal["vit"] = "vit"
    skeleton: ClassVar[str] = "encoder"
    patch_size: int = Field(default=16, ge=1, le=512)
    n_layers: int = Field(default=12, ge=1, le=1000)
    mixer: MixerConfig = AttentionConfig(n_heads=12)
    d_model: int = Field(default=768, ge=2, le=65536)
    d_ff: int = Field(default=3072, ge=0, le=1 << 20)
    wiring: WiringKind = "pre"
    activation: Activation = "gelu"
    norm_eps: float = Field(default=1e-6, gt=0)
    positions: PositionKind = "learned"
    initialisation: Initialisation = "bert"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    stem: Literal["patch", "conv"] = "patch"
    stem_width: int = Field(default=32, ge=1, le=8192)
    stem_norm: ConvNorm = "batch"
    pool: Pooling = "cls"

    @property
    def input(self) -> str:
        """What the blocks read: patches as they are, or what convolutions make of them."""
        return "patches" if self.stem == "patch" else "feature maps"

    @property
    def side(self) -> int:
        """Patches along one side of a picture."""
        return self.image_size // self.patch_size

    def stacks(self) -> dict[str, StackConfig]:
        """The one stack, as encoder."""
        return {"encoder": StackConfig(n_layers=self.n_layers, mixer=self.mixer)}

    @model_validator(mode="after")
    def _patches_fit(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not divisible by patch_size {self.patch_size}; use a patch that divides it"
            )
        if self.positions == "sinusoidal" and self.d_model % 4:
            raise ValueError(f"d_model {self.d_model} must be divisible by 4 for sinusoids in two directions")
        if self.stem == "conv" and self.patch_size & (self.patch_size - 1):
            raise ValueError(f"patch_size {self.patch_size} is not a power of two, which a stem of halvings makes")
        _require_even(self.mixer, self.d_model)
        return self


class ResNetConfig(ImageConfig):
    """Residual convolutional network (He et al. 2016). Defaults are ResNet-18's.

    stem: `imagenet` a 7x7 convolution of stride 2 and a 3x3 maximum of stride 2; `small` one 3x3 convolution, for
    pictures of 28 to 64 pixels (He et al. 2016, section 4.2). block: `basic` two 3x3 convolutions; `bottleneck` 1x1, 3x3,
    1x1, the inner two of a quarter of the width. depths, widths: blocks and channels of each stage; all but the first halve
    the picture. norm: over the batch (Ioffe & Szegedy 2015), or over n_groups groups of channels (Wu & He 2018), which
    does not depend on the batch. zero_last: the last norm of a block begins at zero, so that blocks begin as the identity
    (Goyal et al. 2017). stride_in_1x1: a bottleneck halves the picture in its first convolution, as the paper has it, not in
    its second.
    """

    kind: Literal["resnet"] = "resnet"
    skeleton: ClassVar[str] = "off the grid"
    input: ClassVar[str] = "pixels"
    wiring: ClassVar[str] = "own"
    stem: Literal["imagenet", "small"] = "imagenet"
    stem_width: int = Field(default=64, ge=1, le=8192)
    block: Literal["basic", "bottleneck"] = "basic"
    depths: tuple[int, ...] = Field(default=(2, 2, 2, 2), min_length=1, max_length=16)
    widths: tuple[int, ...] = Field(default=(64, 128, 256, 512), min_length=1, max_length=16)
    norm: ConvNorm = "batch"
    n_groups: int = Field(default=32, ge=1, le=8192)
    norm_eps: float = Field(default=1e-5, gt=0)
    activation: Literal["relu", "gelu", "silu"] = "relu"
    zero_last: bool = True
    stride_in_1x1: bool = False
    pool: Literal["mean", "max"] = "mean"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    @property
    def d_model(self) -> int:
        """The width of what its head sees."""
        return self.widths[-1]

    def stacks(self) -> dict[str, StackConfig]:
        """None: it has no mixers."""
        return {}

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if (
            len(self.depths) != len(self.widths)
            or min(self.depths) < 1
            or not 1 <= min(self.widths) <= max(self.widths) <= 1 << 16
        ):
            raise ValueError("depths and widths need one positive number a stage each")
        if self.block == "bottleneck" and any(width % 4 for width in self.widths):
            raise ValueError(f"bottleneck widths {list(self.widths)} must be divisible by 4")
        narrow = [self.stem_width, *self.widths, *(w // 4 for w in self.widths if self.block == "bottleneck")]
        if self.norm == "group" and any(width % self.n_groups for width in narrow):
            raise ValueError(f"n_groups {self.n_groups} does not divide all channels {sorted(set(narrow))}")
        smallest = self.image_size // (4 if self.stem == "imagenet" else 1) // 2 ** (len(self.depths) - 1)
        if smallest < 1:
            raise ValueError(
                f"{len(self.depths)} stages leave nothing of {self.image_size} pixels; use stem: small, or fewer"
            )
        return self


class ImageVocabulary(Config):
    """What an image classifier must know of its data. labels: its classes, in order.

    mean, std: of each channel of pixels in [0, 1], which are made (pixel - mean) / std. fit: how a picture of another size
    is brought to the model's: `stretch`, or `crop`: its shorter side is made image_size / crop_share and the centre cut out.
    """

    labels: tuple[str, ...] = Field(max_length=1 << 20)
    mean: tuple[float, ...] = Field(min_length=1, max_length=3)
    std: tuple[float, ...] = Field(min_length=1, max_length=3)
    fit: Fit = "stretch"
    crop_share: float = Field(default=1.0, gt=0, le=1)
    resample: Resample = "bilinear"

    @model_validator(mode="after")
    def _one_number_a_channel(self) -> Self:
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError("mean and std need one number for each channel, std above zero")
        return self


TextModelConfig = EncoderDecoderConfig | DecoderConfig | EncoderConfig
ModelConfig = Annotated[TextModelConfig | ViTConfig | ResNetConfig, Field(discriminator="kind")]
AnyModelConfig = EncoderDecoderConfig | DecoderConfig | EncoderConfig | ViTConfig | ResNetConfig
"""ModelConfig for annotations outside of configs."""
AnyVocabulary = Vocabulary | ImageVocabulary
