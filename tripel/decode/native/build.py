"""Compiles the native decoder, once per machine, where a C++ compiler is found; nothing needs it."""

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

from tripel.files import cache_folder

SWITCH = "TRIPEL_NATIVE"
"""Environment variable: 0 decodes without native code."""

_SOURCES = ("translator.cpp", "kernels.h")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-shared", "-fPIC")
_SECONDS = 120


@cache
def library() -> ctypes.CDLL | None:
    """The compiled decoder, from the user's cache or compiled now (some seconds); None where that is not possible."""
    if os.environ.get(SWITCH, "1") == "0":
        return None
    compiler = _compiler()
    if compiler is None:
        return None
    try:
        path = cache_folder() / "native" / f"translator-{_key(compiler)}.so"
        if not path.exists():
            _compile(compiler, path)
        return _declare(ctypes.CDLL(str(path)))
    except (OSError, subprocess.SubprocessError, AttributeError):  # no room, no right to write, a compiler that fails
        return None


def _compiler() -> str | None:
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _key(compiler: str) -> str:
    """Changes with the sources, the compiler and the processor that -march=native means."""
    digest = hashlib.sha256()
    for name in _SOURCES:
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


def _compile(compiler: str, path: Path) -> None:
    """Compile beside the final place and rename, so that a library is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        source = Path(__file__).parent / _SOURCES[0]
        command = [compiler, *_FLAGS, "-o", str(draft), str(source)]
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
        draft.replace(path)


def _declare(native: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    signatures = {
        "tripel_panel": (number, []),
        "tripel_pair": (number, []),
        "tripel_model": (pointer, [pointer, ctypes.c_float, pointer]),
        "tripel_free_model": (None, [pointer]),
        "tripel_start": (pointer, [pointer, pointer, pointer, number, number, number]),
        "tripel_free_state": (None, [pointer]),
        "tripel_select": (None, [pointer, pointer, number]),
        "tripel_step": (None, [pointer, pointer, number, pointer, number, pointer, pointer, pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(native, name)
        function.restype, function.argtypes = result, arguments
    return native
