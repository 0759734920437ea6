"""Several models trained on the same data with the same budget, and what each of them makes of it."""

from __future__ import annotations

from tripel.compare.comparing import compare
from tripel.compare.comparison import Comparison, Curve, Result

__all__ = ["Comparison", "Curve", "Result", "compare"]
