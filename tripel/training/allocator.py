"""Tell the C library to keep the memory that training frees and asks for again."""

from __future__ import annotations

import ctypes
import platform

# glibc's mallopt parameters (malloc.h). Sizes in bytes; each takes a C int.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_memory() -> bool:
    """Stop glibc from giving freed blocks back to the kernel; True where that could be done (Linux with glibc).

    By default every block above 128 KiB to 32 MiB is mapped afresh, and each of its pages is faulted in and zeroed anew
    at its first touch. A training step asks for the same blocks over and over: without those faults a plain
    training loop of a small model ran 1.3 times as fast. The price is that memory once used stays with the process.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    settings = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 1 << 26}
    accepted = [mallopt(parameter, size) == 1 for parameter, size in settings.items()]
    return all(accepted)
