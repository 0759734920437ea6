"""Multi-head attention (Vaswani et al. 2017, section 3.2): the mixer, and its cross-attention to a memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from tripel.nn.dropout import dropout
from tripel.nn.exact import RMSNorm
from tripel.nn.linear import FusedLinear
from tripel.nn.mixer import BaseMixerConfig, Mixer, State, Taps
from tripel.nn.rotary import rotate
from tripel.nn.short_attention import short_attention

# Up to this many keys the explicit product beats the flash kernel on CPU, whose backward is all overhead there.
EXPLICIT_KEYS = 256
# From this many queries on it is a sequence that is read, not beams that take a step: worth padding its keys.
WHOLE_QUERIES = 8


class AttentionConfig(BaseMixerConfig):
    """Multi-head attention. dropout acts on the attention weights.

    n_kv_heads: heads of keys and values, each shared by n_heads / n_kv_heads query heads (Ainslie et al. 2023); None for
    n_heads. window: the positions seen, itself included (Child et al. 2019); None for all, and both ways as many on each
    side. rotary: positions by turning queries and keys (Su et al. 2021), with base rotary_base. qk_norm: an RMSNorm on
    every query and key (Henry et al. 2020).
    """

    kind: Literal["attention"] = "attention"
    n_heads: int = Field(default=8, ge=1)
    n_kv_heads: int | None = Field(default=None, ge=1)
    bias: bool = True
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    window: int | None = Field(default=None, ge=1)
    rotary: bool = False
    rotary_base: float = Field(default=10_000.0, gt=1.0)
    qk_norm: bool = False

    @model_validator(mode="after")
    def _heads_are_shared_equally(self) -> AttentionConfig:
        if self.n_kv_heads is not None and self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}")
        return self


class Attention(Mixer):
    """Self-attention. Queries, keys and values come from one product with a weight of shape ((H + 2 KV) E, D)."""

    def __init__(self, config: AttentionConfig, d_model: int, *, causal: bool) -> None:
        super().__init__()
        self.causal, self.n_heads, self.dropout = causal, config.n_heads, config.dropout
        self.n_kv_heads = config.n_kv_heads or config.n_heads
        self.window, self.rotary_base = config.window, config.rotary_base if config.rotary else None
        d_head = d_model // config.n_heads
        d_kv = self.n_kv_heads * d_head
        self.query_key_value = FusedLinear(d_model, (d_model, d_kv, d_kv), bias=config.bias)
        self.query_norm = RMSNorm(d_head) if config.qk_norm else None
        self.key_norm = RMSNorm(d_head) if config.qk_norm else None
        self.output = nn.Linear(d_model, d_model, bias=config.bias)

    def initialise(self, scheme: str) -> None:
        """mimetic: queries and keys begin with one rotation in common, values and outputs with another and its inverse, so
        that a position attends to those like it, which its neighbours are, and adds their mean (Trockman & Kolter 2023,
        who take the mean away: a masked-token model learns faster so)."""
        if scheme == "mimetic" and self.n_kv_heads == self.n_heads:
            query, key, value = self.query_key_value.parts()
            _begin_alike(query, key, value, self.output.weight)

    def forward(
        self, x_BTD: Tensor, *, valid_BT: Tensor | None = None, state: State | None = None, taps: Taps | None = None
    ) -> Tensor:
        B, T, D = x_BTD.shape
        start = 0 if state is None else cast(AttentionState, state).start()
        q_BHTE, k_BHSE, v_BHSE = self._heads(x_BTD, start)
        allowed = None if valid_BT is None else valid_BT[:, None, None, :]
        causal = self.causal
        if state is not None:
            k_BHSE, v_BHSE, allowed = cast(AttentionState, state).append(k_BHSE, v_BHSE, self.window)
            causal = False  # what a new position may see is already in `allowed`
        elif causal:
            allowed = None  # right padding lies in the future of every valid position
        if state is None and self.window is not None and self.window < T:
            allowed = _near(T, self.window, allowed, x_BTD.device)
        if self.n_kv_heads != self.n_heads:
            share = self.n_heads // self.n_kv_heads
            k_BHSE, v_BHSE = k_BHSE.repeat_interleave(share, dim=1), v_BHSE.repeat_interleave(share, dim=1)
        rate = self.dropout if self.training else 0.0
        y_BHTE = attend(q_BHTE, k_BHSE, v_BHSE, causal=causal, allowed=allowed, rate=rate)
        if taps is not None:
            tap_attention(taps, q_BHTE, k_BHSE, causal=causal, allowed=allowed)
        return self.output(y_BHTE.transpose(1, 2).reshape(B, T, D))

    def _heads(self, x_BTD: Tensor, start: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, E), keys and values (B, KV, T, E), normed and turned."""
        B, T, D = x_BTD.shape
        qkv_BTX, E = self.query_key_value(x_BTD), D // self.n_heads
        if self.n_kv_heads == self.n_heads:
            q_BHTE, k_BHTE, v_BHTE = qkv_BTX.view(B, T, 3, self.n_heads, E).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            parts = qkv_BTX.split(self.query_key_value.sizes, dim=-1)
            q_BHTE, k_BHTE, v_BHTE = (part.unflatten(-1, (-1, E)).transpose(1, 2) for part in parts)
        if self.query_norm is not None and self.key_norm is not None:
            q_BHTE, k_BHTE = self.query_norm(q_BHTE), self.key_norm(k_BHTE)
        if self.rotary_base is not None:
            q_BHTE, k_BHTE = (rotate(x, start, self.rotary_base) for x in (q_BHTE, k_BHTE))
        return q_BHTE, k_BHTE, v_BHTE

    def init_state(self, batch: int, max_len: int) -> AttentionState:
        weight = self.output.weight
        d_head = weight.shape[0] // self.n_heads
        return AttentionState(batch, self.n_kv_heads, max_len, d_head, weight.dtype, weight.device)


class AttentionState(State):
    """Keys and values (N, H, max_len, E) in buffers allocated once, written in place, and a length per row.

    While all rows have the same length it is kept as one int and no mask is needed; joined rows of different lengths
    carry a tensor of lengths.
    """

    def __init__(
        self, batch: int, n_heads: int, max_len: int, d_head: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.k_NHSE = torch.empty(batch, n_heads, max_len, d_head, dtype=dtype, device=device)
        self.v_NHSE = torch.empty_like(self.k_NHSE)
        self.length: int = 0  # of the longest row
        self.length_N: Tensor | None = None  # only when rows differ
        self._spare: tuple[Tensor, Tensor] | None = None

    def start(self) -> int | Tensor:
        """The next position, one number or one per row (N,)."""
        return self.length if self.length_N is None else self.length_N

    def append(self, k_NHTE: Tensor, v_NHTE: Tensor, window: int | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Write T new positions; return keys and values up to the longest row, and which of them each query may see."""
        T, start = k_NHTE.shape[2], self.length
        if start + T > self.k_NHSE.shape[2]:
            raise ValueError(f"attention state holds {self.k_NHSE.shape[2]} positions; asked for {start + T}")
        self.length = end = start + T
        if self.length_N is None:
            self.k_NHSE[:, :, start:end] = k_NHTE
            self.v_NHSE[:, :, start:end] = v_NHTE
            if window is not None and T == 1:  # nobody else looks back further
                first = max(end - window, 0)
                return self.k_NHSE[:, :, first:end], self.v_NHSE[:, :, first:end], None
            allowed = None if T == 1 else torch.ones(T, end, dtype=torch.bool, device=k_NHTE.device).tril_(start)
            if window is not None and allowed is not None:
                allowed.triu_(start - window + 1)
        else:
            step_T = torch.arange(T, device=k_NHTE.device)
            where_NT = self.length_N[:, None] + step_T
            rows_N1 = torch.arange(len(where_NT), device=k_NHTE.device)[:, None]
            self.k_NHSE[rows_N1, :, where_NT] = k_NHTE.transpose(1, 2).to(self.k_NHSE.dtype)
            self.v_NHSE[rows_N1, :, where_NT] = v_NHTE.transpose(1, 2).to(self.v_NHSE.dtype)
            self.length_N = self.length_N + T
            key_S = torch.arange(end, device=k_NHTE.device)
            allowed = (key_S <= where_NT[:, :, None])[:, None]
            if window is not None:
                allowed &= (key_S > where_NT[:, :, None] - window)[:, None]
        return self.k_NHSE[:, :, :end], self.v_NHSE[:, :, :end], allowed

    def select(self, rows_N: Tensor) -> None:
        spare = self._spare
        if spare is None or spare[0].shape[0] < len(rows_N):
            shape = (len(rows_N), *self.k_NHSE.shape[1:])
            # Rows of one length never read beyond it; the shorter of unequal rows do, with a weight of zero.
            allocate = self.k_NHSE.new_empty if self.length_N is None else self.k_NHSE.new_zeros
            spare = (allocate(shape), allocate(shape))
        k_NHSE, v_NHSE = spare[0][: len(rows_N)], spare[1][: len(rows_N)]
        end = self.length
        torch.index_select(self.k_NHSE[:, :, :end], 0, rows_N, out=k_NHSE[:, :, :end])
        torch.index_select(self.v_NHSE[:, :, :end], 0, rows_N, out=v_NHSE[:, :, :end])
        self._spare, self.k_NHSE, self.v_NHSE = (self.k_NHSE, self.v_NHSE), k_NHSE, v_NHSE
        if self.length_N is not None:
            self.length_N = self.length_N[rows_N]
            longest = int(self.length_N.max()) if len(rows_N) else 0
            self.length = longest
            if len(rows_N) and int(self.length_N.min()) == longest:
                self.length_N = None

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        first = states[0]
        _, H, _, E = first.k_NHSE.shape
        batch, max_len = sum(len(s.k_NHSE) for s in states), max(s.k_NHSE.shape[2] for s in states)
        joined = cls(batch, H, max_len, E, first.k_NHSE.dtype, first.k_NHSE.device)
        # What lies beyond a row's own length is multiplied by a weight of zero, now and after every later step: it must
        # be a number all the same.
        joined.k_NHSE.zero_()
        joined.v_NHSE.zero_()
        row, lengths = 0, []
        for state in states:
            rows = slice(row, row + len(state.k_NHSE))
            joined.k_NHSE[rows, :, : state.length] = state.k_NHSE[:, :, : state.length]
            joined.v_NHSE[rows, :, : state.length] = state.v_NHSE[:, :, : state.length]
            lengths.append(state.lengths())
            row = rows.stop
        length_N = torch.cat(lengths)
        joined.length = max(state.length for state in states)
        joined.length_N = None if int(length_N.min()) == joined.length else length_N
        return joined

    def lengths(self) -> Tensor:
        """The number of positions each row has read, (N,)."""
        if self.length_N is not None:
            return self.length_N
        return torch.full((len(self.k_NHSE),), self.length, dtype=torch.int64, device=self.k_NHSE.device)


def _begin_alike(query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
    """Add one rotation to queries and keys, and another and its inverse to values and outputs; weights (D, D)."""
    for left, right, gain in ((query, key, 1.0), (value, output.T, 0.6)):
        rotation = gain * nn.init.orthogonal_(torch.empty_like(query))
        left += rotation
        right += rotation


class CrossAttention(nn.Module):
    """Attention from decoder positions to the encoder's memory. Reads the memory once into keys and values."""

    def __init__(self, config: AttentionConfig, d_model: int, d_memory: int) -> None:
        super().__init__()
        self.n_heads, self.dropout = config.n_heads, config.dropout
        self.query = nn.Linear(d_model, d_model, bias=config.bias)
        self.key_value = FusedLinear(d_memory, (d_model, d_model), bias=config.bias)
        self.output = nn.Linear(d_model, d_model, bias=config.bias)

    def initialise(self, scheme: str) -> None:
        """mimetic: as in Attention, so that a target position attends to the places of the source that are like it: those of
        the same word, and those as far from the beginning."""
        key, value = self.key_value.parts()
        if scheme == "mimetic" and key.shape == self.query.weight.shape:
            _begin_alike(self.query.weight, key, value, self.output.weight)

    def read(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, E) of a memory, computed once per sentence; contiguous, since every step reads them."""
        B, S, _ = memory_BSD.shape
        kv_2BHSE = self.key_value(memory_BSD).view(B, S, 2, self.n_heads, -1).permute(2, 0, 3, 1, 4).contiguous()
        return kv_2BHSE[0], kv_2BHSE[1]

    def forward(
        self,
        x_NTD: Tensor,
        keys_values: tuple[Tensor, Tensor],
        *,
        valid_BS: Tensor | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """x may have n rows (beams) per sentence of the memory, grouped: row i belongs to sentence i // n.

        valid_BS: which memory positions are real, as `allowed` of attend.
        """
        k_BHSE, v_BHSE = keys_values
        N, T, D = x_NTD.shape
        B, rate = len(k_BHSE), self.dropout if self.training else 0.0
        # The rows of one sentence become positions of one query, so that its keys are never repeated.
        q_BHTE = self.query(x_NTD).view(B, N // B * T, self.n_heads, -1).transpose(1, 2)
        allowed = None if valid_BS is None else valid_BS[:, None, None, :]
        y_BHTE = attend(q_BHTE, k_BHSE, v_BHSE, causal=False, allowed=allowed, rate=rate)
        if taps is not None:
            tap_attention(taps, q_BHTE, k_BHSE, causal=False, allowed=allowed)
        return self.output(y_BHTE.transpose(1, 2).reshape(N, T, D))


class Memory(State):
    """The keys and values of one memory for every decoder layer, kept once per sentence, not once per beam.

    Rows are grouped by sentence, `beams` of them each. select keeps that: within a sentence it costs nothing; dropping
    whole sentences gathers; anything irregular falls back to one copy per row.
    """

    def __init__(self, layers: list[tuple[Tensor, Tensor]], valid_BS: Tensor | None) -> None:
        self.layers, self.valid_BS, self.beams = layers, valid_BS, 1
        self._bias_BS: Tensor | None = None

    def bias(self) -> Tensor | None:
        """valid_BS as what is added to scores, made once and not at every step and layer; None when all are valid."""
        if self._bias_BS is None and self.valid_BS is not None:
            self._bias_BS = additive(self.valid_BS, self.layers[0][0].dtype)
        return self._bias_BS

    def select(self, rows_N: Tensor) -> None:
        owner_N = rows_N // self.beams
        n_sentences = len(self.layers[0][0])
        if len(rows_N) % n_sentences == 0 and len(rows_N):
            beams = len(rows_N) // n_sentences
            if torch.equal(owner_N, torch.arange(n_sentences, device=rows_N.device).repeat_interleave(beams)):
                self.beams = beams
                return
        sentences_B, counts_B = torch.unique_consecutive(owner_N, return_counts=True)
        uniform = len(counts_B) > 0 and bool((counts_B == counts_B[0]).all())
        self.beams = int(counts_B[0]) if uniform else 1
        kept = sentences_B if uniform else owner_N
        self.layers = [(k.index_select(0, kept), v.index_select(0, kept)) for k, v in self.layers]
        if self.valid_BS is not None:
            self.valid_BS, self._bias_BS = self.valid_BS.index_select(0, kept), None

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        longest = max(state.layers[0][0].shape[2] for state in states)

        def per_row(state: Self, x: Tensor) -> Tensor:
            x = x.repeat_interleave(state.beams, 0) if state.beams > 1 else x
            return F.pad(x, (0, 0, 0, longest - x.shape[2]))

        layers = [
            (
                torch.cat([per_row(s, s.layers[i][0]) for s in states]),
                torch.cat([per_row(s, s.layers[i][1]) for s in states]),
            )
            for i in range(len(states[0].layers))
        ]
        valid = [s.row_valid() for s in states]
        return cls(layers, torch.cat([F.pad(v, (0, longest - v.shape[1])) for v in valid]))

    def row_valid(self) -> Tensor:
        """Which memory positions are real, one line per row (N, S)."""
        k_BHSE = self.layers[0][0]
        valid_BS = self.valid_BS
        if valid_BS is None:
            valid_BS = torch.ones(k_BHSE.shape[0], k_BHSE.shape[2], dtype=torch.bool, device=k_BHSE.device)
        return valid_BS.repeat_interleave(self.beams, 0)


def attend(
    q_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, *, causal: bool, allowed: Tensor | None, rate: float
) -> Tensor:
    """softmax(q k^T / sqrt(E)) v (Vaswani 2017, eq. 1). causal needs T == S.

    allowed broadcasts to (B, H, T, S): booleans, or the same made `additive` if it serves many calls.
    """
    (B, H, T, E), S = q_BHTE.shape, k_BHSE.shape[2]
    causal = causal and T > 1
    if q_BHTE.device.type != "cpu" or S > EXPLICIT_KEYS:
        if causal and allowed is not None:
            allowed, causal = allowed & _causal(T, q_BHTE.device), False
        if allowed is not None and allowed.dtype != torch.bool:
            allowed = allowed.to(q_BHTE.dtype)
        return F.scaled_dot_product_attention(
            q_BHTE, k_BHSE, v_BHSE, attn_mask=allowed, dropout_p=rate, is_causal=causal
        )
    with torch.autocast("cpu", enabled=False):  # its float32 softmax would copy the scores twice
        if T >= WHOLE_QUERIES and (allowed is None or allowed.dtype == torch.bool):
            k_BHSE, v_BHSE = k_BHSE.to(q_BHTE.dtype), v_BHSE.to(q_BHTE.dtype)
            return short_attention(q_BHTE, k_BHSE, v_BHSE, causal=causal, allowed=allowed, rate=rate)
        weights_BHTS = _weights(q_BHTE, k_BHSE.to(q_BHTE.dtype), causal=causal, allowed=allowed)
        weights_GTS, v_GSE = dropout(weights_BHTS, rate).view(B * H, T, S), v_BHSE.to(q_BHTE.dtype).reshape(B * H, S, E)
        return torch.bmm(weights_GTS, v_GSE).view(B, H, T, E)


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores: 0 where allowed, -inf elsewhere."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, -math.inf)


def tap_attention(taps: Taps, q_BHTE: Tensor, k_BHSE: Tensor, *, causal: bool, allowed: Tensor | None) -> None:
    """Recompute scores and weights beside the kernel, in float32, from the same queries and keys."""
    q, k = q_BHTE.detach().float(), k_BHSE.detach().float()
    taps("scores", q @ k.mT / math.sqrt(q.shape[-1]))
    taps("weights", _weights(q, k, causal=causal, allowed=allowed))


def _weights(q_BHTE: Tensor, k_BHSE: Tensor, *, causal: bool, allowed: Tensor | None) -> Tensor:
    (B, H, T, E), S = q_BHTE.shape, k_BHSE.shape[2]
    # One product over B * H pairs, scale included: matmul would expand, copy and scale in steps of their own.
    q_GTE, k_GSE = q_BHTE.reshape(B * H, T, E), k_BHSE.reshape(B * H, S, E)
    ignored = q_GTE.new_empty(())
    scores_BHTS = torch.baddbmm(ignored, q_GTE, k_GSE.mT, beta=0, alpha=1 / math.sqrt(E)).view(B, H, T, S)
    if causal:
        future = _causal(T, q_BHTE.device)
        allowed = future if allowed is None else allowed & future
    if allowed is not None:
        bias = additive(allowed, scores_BHTS.dtype) if allowed.dtype == torch.bool else allowed
        scores_BHTS = scores_BHTS.add_(bias)
    return scores_BHTS.softmax(-1)


def _near(T: int, window: int, allowed: Tensor | None, device: torch.device) -> Tensor:
    """Which of T positions lie less than `window` apart, and are allowed; padding, which may be far from all that is,
    sees itself at least."""
    near_TT = torch.ones(T, T, dtype=torch.bool, device=device).tril_(window - 1).triu_(1 - window)
    return near_TT if allowed is None else (allowed & near_TT) | torch.eye(T, dtype=torch.bool, device=device)


def _causal(T: int, device: torch.device) -> Tensor:
    return torch.ones(T, T, dtype=torch.bool, device=device).tril_()
