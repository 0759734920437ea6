"""Raw data to batches: names, readers, checks, known sets, encoded corpora and token streams, and their loader.

The loader of windows and the batches are in modules of their own, windows and batch: they need torch, which is slow to
import.
"""

from tripel.data.checks import DataConfig, DataReport, Finding
from tripel.data.corpus import Corpus, encode_corpus, report_unknown, sampled_corpus
from tripel.data.known import KNOWN, get, list_known
from tripel.data.loader import Loader
from tripel.data.names import find_pair, find_text, find_texts
from tripel.data.parallel import ParallelText, Splits, load_parallel, load_splits
from tripel.data.plan import Plan, make_plan
from tripel.data.readers import Line, Pair, read_lines, read_pairs
from tripel.data.steps import StepLoader
from tripel.data.text import TextDataConfig, TextSource, TextSplits, load_texts, open_text
from tripel.data.tokens import TokenStream, encode_stream, report_unknown_tokens

__all__ = [
    "KNOWN",
    "Corpus",
    "DataConfig",
    "DataReport",
    "Finding",
    "Line",
    "Loader",
    "Pair",
    "ParallelText",
    "Plan",
    "Splits",
    "StepLoader",
    "TextDataConfig",
    "TextSource",
    "TextSplits",
    "TokenStream",
    "encode_corpus",
    "encode_stream",
    "find_pair",
    "find_text",
    "find_texts",
    "get",
    "list_known",
    "load_parallel",
    "load_splits",
    "load_texts",
    "make_plan",
    "open_text",
    "read_lines",
    "read_pairs",
    "report_unknown",
    "report_unknown_tokens",
    "sampled_corpus",
]
