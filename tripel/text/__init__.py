"""Text to ids and back: cleaning, tokenizers trained here, BPE dropout, incremental detokenization."""

from tripel.text.clean import Cleaned, clean, normalize
from tripel.text.explanation import Explanation
from tripel.text.pair import TokenizerPair
from tripel.text.segmentation import SegmentationSampler
from tripel.text.stream import TextStream
from tripel.text.tokenizer import Tokenizer, TokenizerConfig

__all__ = [
    "Cleaned",
    "Explanation",
    "SegmentationSampler",
    "TextStream",
    "Tokenizer",
    "TokenizerConfig",
    "TokenizerPair",
    "clean",
    "normalize",
]
