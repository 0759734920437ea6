"""Compiles the native decoders, once per machine, where a C++ compiler is found; nothing needs it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Literal

from tripel.files import cache_folder

SWITCH = "TRIPEL_NATIVE"
"""Environment variable: 0 decodes without native code."""

Name = Literal["translator", "decoder", "encoder"]

_STACK = ("attention.h", "kernels.h", "maps.h", "model.h", "pass.h", "pool.h")
_SOURCES: dict[Name, tuple[str, ...]] = {
    "translator": ("translator.cpp", "kernels.h"),
    "decoder": ("decoder.cpp", *_STACK),
    "encoder": ("encoder.cpp", *_STACK),
}
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-pthread", "-shared", "-fPIC")
_SECONDS = 120


@cache
def library(name: Name = "translator") -> ctypes.CDLL | None:
    """A compiled decoder, from the user's cache or compiled now (some seconds); None where that is not possible.

    translator: of an attention encoder-decoder; decoder, encoder: of an attention model that is nothing else.
    """
    if os.environ.get(SWITCH, "1") == "0":
        return None
    compiler = _compiler()
    if compiler is None:
        return None
    try:
        path = cache_folder() / "native" / f"{name}-{_key(compiler, _SOURCES[name])}.so"
        if not path.exists():
            _compile(compiler, _SOURCES[name][0], path)
        return _declare(ctypes.CDLL(str(path)), _SIGNATURES[name])
    except (OSError, subprocess.SubprocessError, AttributeError):  # no room, no right to write, a compiler that fails
        return None


def _compiler() -> str | None:
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _key(compiler: str, sources: tuple[str, ...]) -> str:
    """Changes with the sources, the compiler and the processor that -march=native means."""
    digest = hashlib.sha256()
    for name in sources:
        digest.update((Path(__file__).parent / name).read_bytes())
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=_SECONDS).stdout
    digest.update(version + " ".join((compiler, *_FLAGS, platform.machine(), _processor())).encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(next((line for line in lines if line.startswith(name)), "") for name in ("flags", "Features"))


def _compile(compiler: str, source: str, path: Path) -> None:
    """Compile beside the final place and rename, so that a library is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        command = [compiler, *_FLAGS, "-o", str(draft), str(Path(__file__).parent / source)]
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
        draft.replace(path)


_POINTER, _NUMBER, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_Signatures = dict[str, tuple[type | None, list[type]]]
_GIVING: _Signatures = {
    "tripel_stack_model": (_POINTER, [_POINTER, _POINTER]),
    "tripel_stack_free_model": (None, [_POINTER]),
    "tripel_stack_map": (None, [_POINTER, _POINTER, _POINTER, _NUMBER, _NUMBER, _FLOAT]),
    "tripel_stack_vector": (None, [_POINTER, _POINTER, _NUMBER]),
    "tripel_stack_ready": (None, [_POINTER]),
}
_SIGNATURES: dict[Name, _Signatures] = {
    "translator": {
        "tripel_panel": (_NUMBER, []),
        "tripel_pair": (_NUMBER, []),
        "tripel_model": (_POINTER, [_POINTER, _FLOAT, _POINTER]),
        "tripel_free_model": (None, [_POINTER]),
        "tripel_start": (_POINTER, [_POINTER, _POINTER, _POINTER, _NUMBER, _NUMBER, _NUMBER]),
        "tripel_free_state": (None, [_POINTER]),
        "tripel_select": (None, [_POINTER, _POINTER, _NUMBER]),
        "tripel_step": (None, [_POINTER, _POINTER, _NUMBER, _POINTER, _NUMBER, _POINTER, _POINTER, _POINTER]),
    },
    "decoder": {
        **_GIVING,
        "tripel_decoder_columns": (_NUMBER, [_POINTER]),
        "tripel_decoder_start": (_POINTER, [_POINTER]),
        "tripel_decoder_free_state": (None, [_POINTER]),
        "tripel_decoder_add": (None, [_POINTER, _NUMBER, _NUMBER]),
        "tripel_decoder_join": (None, [_POINTER, _POINTER]),
        "tripel_decoder_select": (None, [_POINTER, _POINTER, _NUMBER]),
        "tripel_decoder_read": (
            None,
            [_POINTER, _POINTER, _POINTER, _NUMBER, _NUMBER, _POINTER, _NUMBER, _POINTER, _POINTER, _POINTER],
        ),
    },
    "encoder": {
        **_GIVING,
        "tripel_encoder_start": (_POINTER, [_POINTER]),
        "tripel_encoder_free_room": (None, [_POINTER]),
        "tripel_encoder_read": (None, [_POINTER, _POINTER, _POINTER, _POINTER, _NUMBER, _NUMBER, _NUMBER, _POINTER]),
        "tripel_encoder_read_given": (None, [_POINTER, _POINTER, _NUMBER, _NUMBER, _NUMBER, _NUMBER, _POINTER]),
    },
}


def _declare(native: ctypes.CDLL, signatures: _Signatures) -> ctypes.CDLL:
    for name, (result, arguments) in signatures.items():
        function = getattr(native, name)
        function.restype, function.argtypes = result, arguments
    return native
