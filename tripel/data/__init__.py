"""Raw data to batches: names, readers, checks, known sets, the encoded corpus and the loader."""

from tripel.data.checks import DataConfig, DataReport, Finding
from tripel.data.corpus import Corpus, encode_corpus, report_unknown, sampled_corpus
from tripel.data.known import KNOWN, get, list_known
from tripel.data.loader import Loader
from tripel.data.names import find_pair, find_text
from tripel.data.parallel import ParallelText, Splits, load_parallel, load_splits
from tripel.data.plan import Plan, make_plan
from tripel.data.readers import Line, Pair, read_lines, read_pairs

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
    "encode_corpus",
    "find_pair",
    "find_text",
    "get",
    "list_known",
    "load_parallel",
    "load_splits",
    "make_plan",
    "read_lines",
    "read_pairs",
    "report_unknown",
    "sampled_corpus",
]
