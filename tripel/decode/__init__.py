"""Choosing answers: one loop (engine), greedy and sampled paths, beam search, and fast ways to compute the model."""

from tripel.decode.engine import generate, stream
from tripel.decode.prepare import prepare
from tripel.decode.search import DecodeConfig, Hypothesis

__all__ = ["DecodeConfig", "Hypothesis", "generate", "prepare", "stream"]
