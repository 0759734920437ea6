"""Choosing how a model is computed while it decodes."""

from __future__ import annotations

from typing import Literal

from tripel.decode.native import native_model
from tripel.decode.pack import pack
from tripel.decode.session import Translating
from tripel.errors import DeviceError
from tripel.models.encoder_decoder import EncoderDecoder

Engine = Literal["auto", "native", "torch", "plain"]
Precision = Literal["float32", "bfloat16"]


def prepare(model: EncoderDecoder, engine: Engine = "auto", precision: Precision = "float32") -> Translating:
    """What generate should be given for a model whose weights stay as they are now.

    engine: `native` the compiled decoder; `torch` PyTorch on packed weights; `auto` the first of them that this machine
    and model allow; `plain` the model itself, which alone follows later changes of its weights.
    precision: of the native decoder's products; sums are float32. bfloat16 is up to twice as fast on processors that have
    it; the other engines compute in the weights' own type.
    Raises DeviceError when `native` is asked for and cannot be had.
    """
    if engine == "plain":
        return model
    native = native_model(model, half=precision == "bfloat16") if engine in ("auto", "native") else None
    if native is None and engine == "native":
        raise DeviceError(
            "the native decoder cannot be used here",
            given=f"a model on {model.target_tokens.weight.device}, precision {precision}",
            expected="attention mixers, on the CPU, a C++ compiler (c++, g++ or clang++) and a cache folder to write to",
            mend="install a compiler, or choose the engine torch",
        )
    return native if native is not None else pack(model)
