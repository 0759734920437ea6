"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def count(value: float) -> str:
    """12345678 as 12.3 M."""
    for factor, unit in ((1e18, " E"), (1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"


def whole(value: float) -> str:
    """12345678 as 12,345,678."""
    return f"{value:,.0f}"


def size(n_bytes: float) -> str:
    """1536 as 1.54 kB, in powers of 1000."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.3g} {unit}"
    return f"{n_bytes:.3g} B"


def duration(seconds: float) -> str:
    """Short times in µs and ms, long ones in minutes."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def percent(share: float) -> str:
    """0.9012 as 90.12 %."""
    return f"{100 * share:.2f} %"


def listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
