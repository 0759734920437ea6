"""The embedded phrasebook: a bilingual grammar, English to German and English to French, that makes its own parallel corpus.

words/*.tsv     the lexicon: what the words are, how they inflect, what goes with what
patterns/*.yaml the sentence patterns
tokens          words with the concepts they express; spelling of a sentence; alignment
records, lexicon: the words as Python objects; frames: the notation of predicates.tsv
*_forms         inflection of one language; *_syntax, *_phrases: word order and agreement
tree            what a sentence says before a language says it
choose, sampler draw such trees; patterns: writes them; generator: splits them; files: to disk
"""

from tripel.data.phrasebook.files import write
from tripel.data.phrasebook.generator import SPLITS, TARGETS, Pair, PhrasebookSplits, Target, capacity, generate
from tripel.data.phrasebook.tokens import split_words

__all__ = ["SPLITS", "TARGETS", "Pair", "PhrasebookSplits", "Target", "capacity", "generate", "split_words", "write"]
