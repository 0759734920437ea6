"""Choosing how a model is computed while it decodes."""

from __future__ import annotations

from typing import Literal

from tripel.decode.native import native_decoder, native_encoder, native_model
from tripel.decode.pack import pack
from tripel.decode.pack_encoder import pack_encoder
from tripel.decode.session import Completing, Translating
from tripel.errors import DeviceError
from tripel.models.decoder import Decoder
from tripel.models.encoder import Encoder
from tripel.models.encoder_decoder import EncoderDecoder

Engine = Literal["auto", "native", "torch", "plain"]
Precision = Literal["float32", "bfloat16", "int8"]


def prepare(model: EncoderDecoder, engine: Engine = "auto", precision: Precision = "float32") -> Translating:
    """What generate should be given for a model whose weights stay as they are now.

    engine: `native` the compiled decoder; `torch` PyTorch on packed weights; `auto` the first of them that this machine
    and model allow; `plain` the model itself, which alone follows later changes of its weights.
    precision: of the native decoder's products; sums are float32. bfloat16 is up to twice as fast on processors that have
    it; the other engines compute in the weights' own type.
    Raises DeviceError when `native` is asked for and cannot be had, and for int8, which only language models have.
    """
    if precision == "int8":
        raise DeviceError(
            "translation has no 8-bit weights",
            given=f"precision {precision}",
            expected="float32 or bfloat16",
            mend="choose precision bfloat16",
        )
    if engine == "plain":
        return model
    native = native_model(model, half=precision == "bfloat16") if engine in ("auto", "native") else None
    if native is None and engine == "native":
        raise _no_native(f"a model on {model.target_tokens.weight.device}, precision {precision}")
    return native if native is not None else pack(model)


def prepare_decoder(model: Decoder, engine: Engine = "auto", precision: Precision = "float32") -> Completing:
    """What complete should be given for a language model whose weights stay as they are now.

    engine: as for prepare; only models of attention mixers have a compiled decoder. precision: of the compiled decoder's
    weights; one text at a time is as fast as they can be read from memory, so halving them halves its time. bfloat16
    rounds weights and inputs of every product to 8 significant bits; int8 to 8 bits with a scale for every 32 numbers.
    Raises DeviceError when `native` is asked for and cannot be had.
    """
    if engine == "plain":
        return model
    native = native_decoder(model, precision) if engine in ("auto", "native") else None
    if native is None and engine == "native":
        given = f"{model.config.mixer.kind} mixers on {model.tokens.weight.device}, precision {precision}"
        raise _no_native(given)
    return native if native is not None else pack(model)


def prepare_encoder(model: Encoder, engine: Engine = "auto", precision: Precision = "float32") -> Encoder:
    """An encoder whose features are the model's, sooner, for weights that stay as they are now.

    engine: as for prepare; only models of attention mixers have a compiled encoder. precision: of the products; int8 needs
    the compiled encoder and rounds weights and inputs to 8 bits. Hidden states are float32. Raises DeviceError when
    `native`, or int8, is asked for and cannot be had.
    """
    if engine == "plain":
        return model
    native = native_encoder(model, precision) if engine in ("auto", "native") else None
    if native is None and (engine == "native" or precision == "int8"):
        given = f"{model.config.mixer.kind} mixers on {model.tokens.weight.device}, precision {precision}"
        raise _no_native(given, "encoder")
    return native if native is not None else pack_encoder(model, half=precision == "bfloat16")


def _no_native(given: str, part: str = "decoder") -> DeviceError:
    return DeviceError(
        f"the native {part} cannot be used here",
        given=given,
        expected="attention mixers, on the CPU, a C++ compiler (c++, g++ or clang++) and a cache folder to write to",
        mend="install a compiler, or choose the engine torch",
    )
