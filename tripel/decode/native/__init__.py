"""Decoders and the encoder in C++, compiled on the user's machine: an option that everything works without."""

from tripel.decode.native.build import library
from tripel.decode.native.decoder import NativeDecoder, native_decoder
from tripel.decode.native.encoder import NativeEncoder, native_encoder
from tripel.decode.native.layers import FirstOf, NativeStack, native_stack
from tripel.decode.native.model import NativeModel, native_model

__all__ = [
    "FirstOf",
    "NativeDecoder",
    "NativeEncoder",
    "NativeModel",
    "NativeStack",
    "library",
    "native_decoder",
    "native_encoder",
    "native_model",
    "native_stack",
]
