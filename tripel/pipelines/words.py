"""How much meaning word vectors carry, as numbers: agreement with human judgement of likeness, and analogies."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from tripel.data.names import find_text
from tripel.data.readers import read_lines
from tripel.errors import DataError
from tripel.pipelines.embed import Embedder, WordSpace, unit

SIMILARITY = ("EN-SIMLEX-999", "EN-WS-353-ALL")
ANALOGIES = "questions-words"
_QUESTIONS_AT_ONCE = 1024


@dataclass(frozen=True)
class Similarity:
    """Spearman's rank correlation of cosines with human scores. covered: over the n_covered of n_pairs whose words are both
    in the vocabulary; all: over all pairs, with the mean of a longer word's pieces."""

    name: str
    n_pairs: int
    n_covered: int
    covered: float
    all: float


@dataclass(frozen=True)
class Analogies:
    """Share of analogies a : b = c : d for which d has the vector nearest to b - a + c (Mikolov et al. 2013), of the
    n_covered of n_questions whose four words are in the vocabulary. sections: name, number and share of each."""

    name: str
    n_questions: int
    n_covered: int
    accuracy: float
    sections: tuple[tuple[str, int, float], ...]


@dataclass(frozen=True)
class WordScores:
    """contextual: whether vectors of the last layer were compared, or those of the embedding's matrix."""

    contextual: bool
    similarity: tuple[Similarity, ...]
    analogies: Analogies | None

    def to_json(self) -> str:
        """All of it as JSON."""
        record = asdict(self)
        for row in record["similarity"]:  # JSON has no word for what is not a number
            row |= {key: None for key in ("covered", "all") if math.isnan(row[key])}
        return json.dumps(record, ensure_ascii=False, indent=2)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        which = "contextual vectors: what the last layer makes of a word alone"
        table = Table("test", "score", "in vocabulary", "with longer words", title_justify="left")
        table.title = which if self.contextual else "static vectors: rows of the embedding's matrix"
        for row in self.similarity:
            covered = f"{row.covered:.3f} on {row.n_covered:,} of {row.n_pairs:,} pairs"
            table.add_row(row.name, "Spearman", covered, f"{row.all:.3f}")
        if self.analogies is not None:
            found = self.analogies
            table.add_row(
                found.name, "accuracy", f"{found.accuracy:.1%} of {found.n_covered:,} of {found.n_questions:,}", "-"
            )
        yield table


def score_words(embedder: Embedder, folder: str = "words", *, contextual: bool = False) -> WordScores:
    """Score an encoder's word vectors on the sets that lie in a folder of data: SimLex-999, WordSim-353, analogies.

    Raises DataError when none of them is there, or one is damaged."""
    similarity = []
    missing: DataError | None = None
    for name in SIMILARITY:
        try:
            path = find_text(f"{folder}/{name}")
        except DataError as error:
            missing = error
            continue
        similarity.append(score_similarity(embedder, read_pairs(path), name, contextual=contextual))
    analogies = None
    try:
        path = find_text(f"{folder}/{ANALOGIES}")
    except DataError:
        if missing is not None and not similarity:
            raise missing from None
    else:
        analogies = score_analogies(embedder.space(contextual), read_analogies(path), ANALOGIES)
    return WordScores(contextual, tuple(similarity), analogies)


def score_similarity(
    embedder: Embedder, pairs: Sequence[tuple[str, str, float]], name: str, *, contextual: bool = False
) -> Similarity:
    """Spearman's correlation between the cosines of pairs of words and people's scores."""
    known, space = embedder.vocabulary_words, embedder.space(contextual)
    words = sorted({word for pair in pairs for word in pair[:2]})
    vectors = space.centred(embedder.words(words, contextual=contextual))
    row = {word: number for number, word in enumerate(words)}
    cosines = np.array([vectors[row[a]] @ vectors[row[b]] for a, b, _ in pairs])
    scores = np.array([score for _, _, score in pairs])
    in_vocabulary = {word: embedder.tokenizer.normalize(word).strip() in known for word in words}
    covered = np.array([in_vocabulary[a] and in_vocabulary[b] for a, b, _ in pairs])
    return Similarity(
        name, len(pairs), int(covered.sum()), spearman(cosines[covered], scores[covered]), spearman(cosines, scores)
    )


def score_analogies(
    space: WordSpace, sections: Sequence[tuple[str, Sequence[tuple[str, ...]]]], name: str
) -> Analogies:
    """3CosAdd over the words of a space, the three that are given excluded."""
    row = {word: number for number, word in enumerate(space.words)}
    shares = []
    n_questions = n_covered = n_right = 0
    for section, questions in sections:
        lowered = [tuple(word if word in row else word.lower() for word in question) for question in questions]
        known = np.array([[row[w] for w in q] for q in lowered if all(w in row for w in q)], np.int64).reshape(-1, 4)
        right = 0
        for start in range(0, len(known), _QUESTIONS_AT_ONCE):
            a, b, c, d = known[start : start + _QUESTIONS_AT_ONCE].T
            wanted = unit(space.vectors[b] - space.vectors[a] + space.vectors[c])
            cosines = wanted @ space.vectors.T
            np.put_along_axis(cosines, np.stack([a, b, c], axis=1), -np.inf, axis=1)
            right += int((cosines.argmax(axis=1) == d).sum())
        shares.append((section, len(known), right / len(known) if len(known) else 0.0))
        n_questions, n_covered, n_right = n_questions + len(questions), n_covered + len(known), n_right + right
    return Analogies(name, n_questions, n_covered, n_right / n_covered if n_covered else 0.0, tuple(shares))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of ranks, equal values sharing their mean rank; nan for a constant side or fewer than two."""
    if len(a) < 2:
        return float("nan")
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    spread = ranks_a.std() * ranks_b.std()
    covariance = ((ranks_a - ranks_a.mean()) * (ranks_b - ranks_b.mean())).mean()
    return float(covariance / spread) if spread else float("nan")


def read_pairs(path: Path) -> list[tuple[str, str, float]]:
    """`word<TAB>word<TAB>score` lines. Raises DataError naming the line."""
    pairs = []
    for line in read_lines(path):
        columns = line.text.split("\t")
        try:
            first, second, score = columns[0], columns[1], float(columns[2])
        except (IndexError, ValueError):
            raise DataError(
                "this line is not two words and a score",
                file=path,
                line=line.number,
                given=repr(line.text[:80]),
                expected="word<TAB>word<TAB>number",
                mend="correct the line",
            ) from None
        pairs.append((first, second, score))
    return pairs


def read_analogies(path: Path) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Lines of four words under lines `: section`. Raises DataError naming the line."""
    sections: list[tuple[str, list[tuple[str, ...]]]] = []
    for line in read_lines(path):
        words = tuple(line.text.split())
        if words[:1] == (":",):
            sections.append((" ".join(words[1:]), []))
        elif len(words) == 4 and sections:
            sections[-1][1].append(words)
        elif words:
            raise DataError(
                "this line is not an analogy",
                file=path,
                line=line.number,
                given=repr(line.text[:80]),
                expected="four words, under a line that begins with a colon",
                mend="correct the line",
            )
    return sections


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2.0)[inverse]  # type: ignore[no-any-return]
