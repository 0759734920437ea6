"""Scores of translations: three measures that must not be confused, each with the signature that names it.

| name | text | who reports it |
|---|---|---|
| bleu | cased, detokenised: what a reader would see | WMT since 2018; comparable with any sacreBLEU score |
| chrf | the same text, by characters | beside BLEU; kinder to word forms than BLEU |
| bleu_lower_tokenized | lower-cased, normalized, Moses-tokenized | papers on Multi30k and much work before 2018 |

The first and the third can differ by points: a paper's number says nothing until it is known which of them it is.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table
from sacrebleu.metrics import BLEU, CHRF

from tripel.errors import DataError
from tripel.text.moses import lower_norm_tok, primary_language

# sacreBLEU's 13a parts words at spaces, and these are written without. Its own choice for Japanese is another package.
_TOKENIZERS = {"zh": "zh", "ja": "char", "th": "char"}
_LABELS = {
    "bleu": "BLEU, cased detokenised",
    "chrf": "chrF, cased detokenised",
    "bleu_lower_tokenized": "BLEU, lower-cased tokenized",
}


@dataclass(frozen=True)
class TranslationScores:
    """Corpus scores from 0 to 100, higher is better; signatures by the name of the score.

    length_ratio: tokens of the hypotheses over tokens of the references, as `bleu` counts them. Below 1, BLEU is
    multiplied by its brevity penalty exp(1 - 1 / length_ratio) (Papineni et al. 2002, section 2.2.2).
    """

    bleu: float
    chrf: float
    bleu_lower_tokenized: float
    length_ratio: float
    n_sentences: int
    signatures: dict[str, str]

    def to_json(self) -> str:
        """All fields as a JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def __rich__(self) -> Table:
        table = Table(caption=f"{self.n_sentences:,} sentences, length ratio {self.length_ratio:.3f}")
        table.add_column("score")
        table.add_column("value", justify="right")
        table.add_column("signature", overflow="fold")
        for name, label in _LABELS.items():
            table.add_row(label, f"{getattr(self, name):.2f}", self.signatures[name])
        return table

    def __str__(self) -> str:
        text = io.StringIO()
        Console(file=text, width=140, color_system=None).print(self)
        return text.getvalue().rstrip("\n")


def score_translations(hypotheses: Sequence[str], references: Sequence[str], *, language: str) -> TranslationScores:
    """Score hypotheses against one reference each, both cased and detokenised. language: the code of the target side.

    An empty hypothesis is scored as such. Raises DataError if the two differ in number or there are none.
    """
    if len(hypotheses) != len(references) or not references:
        raise DataError(
            "translations cannot be scored",
            given=f"{len(hypotheses)} translations and {len(references)} references",
            expected="as many translations as references, one at least",
            mend="score the translations of all lines of the source, empty lines included",
        )
    bleu = BLEU(tokenize=_TOKENIZERS.get(primary_language(language), "13a"))
    chrf = CHRF()
    # multi-bleu.perl does not smooth. force: the text looks tokenized because it is.
    lowered = BLEU(lowercase=True, tokenize="none", smooth_method="none", force=True)
    cased_score = bleu.corpus_score(hypotheses, [references])
    chrf_score = chrf.corpus_score(hypotheses, [references])
    lowered_score = lowered.corpus_score(
        [lower_norm_tok(text, language=language) for text in hypotheses],
        [[lower_norm_tok(text, language=language) for text in references]],
    )
    tokenizer = f"tok:moses2017-lc.norm.tok-{primary_language(language)}"
    return TranslationScores(
        bleu=cased_score.score,
        chrf=chrf_score.score,
        bleu_lower_tokenized=lowered_score.score,
        length_ratio=cased_score.ratio,
        n_sentences=len(references),
        signatures={
            "bleu": str(bleu.get_signature()),
            "chrf": str(chrf.get_signature()),
            "bleu_lower_tokenized": str(lowered.get_signature()).replace("tok:none", tokenizer),
        },
    )
