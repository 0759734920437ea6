"""The decoder in C++, compiled on the user's machine: an option that everything works without."""

from tripel.decode.native.build import library
from tripel.decode.native.model import NativeModel, native_model

__all__ = ["NativeModel", "library", "native_model"]
