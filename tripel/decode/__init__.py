"""Choosing answers: one loop (engine), greedy and sampled paths, beam search, and packed weights for speed."""

from tripel.decode.engine import generate, stream
from tripel.decode.search import DecodeConfig, Hypothesis

__all__ = ["DecodeConfig", "Hypothesis", "generate", "stream"]
