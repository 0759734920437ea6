"""What a model is: skeleton, mixers, wiring and the handful of scalars that exact Hugging Face parity needs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tripel.config import Config
from tripel.nn import AttentionConfig, MixerConfig
from tripel.nn.block import Activation, NormKind, WiringKind
from tripel.nn.embed import PositionKind, SinusoidOrder

Initialisation = Literal["glorot", "gpt2", "bert", "mimetic"]
HeadKind = Literal["masked-token", "classes", "none"]
Pooling = Literal["cls", "mean", "max"]


class StackConfig(Config):
    """A stack of n_layers equal blocks around one kind of mixer. d_ff: None takes the model's, 0 leaves it out."""

    n_layers: int = Field(default=6, ge=1, le=1000)
    mixer: MixerConfig = AttentionConfig()
    d_ff: int | None = Field(default=None, ge=0, le=1 << 20)


class SkeletonConfig(Config):
    """What every skeleton has. d_ff 0: blocks without a feed-forward part. bias: of the feed-forward maps.

    initialisation: `glorot` uniform maps (Glorot & Bengio 2010); `gpt2` normal with deviation 0.02, and 0.02 / sqrt(2
    n_layers) for the maps that write to the residual stream (Radford et al. 2019, section 2.3); `bert` normal with 0.02;
    `mimetic` that, with attention that begins by looking at neighbours (Attention.initialise) and learned positions that
    begin as sinusoids.
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
    sinusoid_order: SinusoidOrder = "halves"
    embed_scale: bool = True
    head_bias: bool = False
    max_len: int = Field(default=512, ge=2, le=1 << 20)
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


ModelConfig = Annotated[EncoderDecoderConfig | DecoderConfig | EncoderConfig, Field(discriminator="kind")]
AnyModelConfig = EncoderDecoderConfig | DecoderConfig | EncoderConfig
"""ModelConfig for annotations outside of configs."""
