"""Scores of translations against sacreBLEU called directly, the definition of BLEU and known extremes."""

import json
import math
import re
from collections import Counter

import pytest
import sacrebleu

from tripel.errors import DataError
from tripel.tasks.scores import score_translations
from tripel.text.moses import lower_norm_tok

REFERENCES = [
    "A man is riding a bicycle.",
    "Two dogs play in the snow, near McDonald's.",
    'The sign says "Stop" & nobody does.',
    "A girl in a red dress jumps over a small wall.",
]
HYPOTHESES = [
    "A man rides a bicycle.",
    "Two dogs play in the Snow near McDonald's.",
    'The sign says "stop" and nobody does it.',
    "A girl in a red dress is jumping over a wall.",
]


def multi_bleu(hypotheses: list[list[str]], references: list[list[str]]) -> float:
    """Corpus BLEU-4 as defined (Papineni et al. 2002, section 2.3), without smoothing."""
    log_precisions = []
    for n in range(1, 5):
        matches = total = 0
        for hypothesis, reference in zip(hypotheses, references, strict=True):
            ours = Counter(tuple(hypothesis[i : i + n]) for i in range(len(hypothesis) - n + 1))
            theirs = Counter(tuple(reference[i : i + n]) for i in range(len(reference) - n + 1))
            matches += (ours & theirs).total()
            total += ours.total()
        log_precisions.append(math.log(matches / total))
    length, reference_length = sum(map(len, hypotheses)), sum(map(len, references))
    brevity = min(1.0, math.exp(1 - reference_length / length))
    return 100 * brevity * math.exp(sum(log_precisions) / 4)


def test_cased_scores_and_signatures_are_sacrebleus():
    scores = score_translations(HYPOTHESES, REFERENCES, language="en")
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    assert scores.bleu == bleu.corpus_score(HYPOTHESES, [REFERENCES]).score
    assert scores.chrf == chrf.corpus_score(HYPOTHESES, [REFERENCES]).score
    assert scores.signatures["bleu"] == str(bleu.get_signature())
    assert scores.signatures["chrf"] == str(chrf.get_signature())


def test_the_papers_measure_is_plain_bleu_of_lowered_moses_tokens():
    scores = score_translations(HYPOTHESES, REFERENCES, language="en")
    tokens = [[lower_norm_tok(text, language="en").split() for text in side] for side in (HYPOTHESES, REFERENCES)]
    assert scores.bleu_lower_tokenized == pytest.approx(multi_bleu(*tokens), abs=1e-9)
    assert scores.bleu_lower_tokenized != pytest.approx(scores.bleu, abs=0.1)


def test_the_papers_measure_is_not_smoothed():
    scores = score_translations(["a b c d e"], ["a b x d e"], language="en")
    assert scores.bleu_lower_tokenized == 0.0
    assert scores.bleu > 0.0


def test_case_and_quote_style_count_in_cased_bleu_only():
    scores = score_translations(['a dog, "big".'] * 2, ["A dog, “big”."] * 2, language="en")
    assert scores.bleu_lower_tokenized == pytest.approx(100)
    assert scores.bleu < 50


def test_references_score_one_hundred_and_nothing_scores_zero():
    perfect = score_translations(REFERENCES, REFERENCES, language="de")
    assert (perfect.bleu, perfect.chrf, perfect.bleu_lower_tokenized) == pytest.approx((100, 100, 100))
    assert perfect.length_ratio == 1
    silent = score_translations([""] * 4, REFERENCES, language="de")
    assert (silent.bleu, silent.chrf, silent.bleu_lower_tokenized, silent.length_ratio) == (0, 0, 0, 0)


def test_chinese_and_japanese_are_scored_by_characters():
    for language in ("zh", "zh-CN", "ja"):
        scores = score_translations(["两只狗在雪地里玩"], ["两只狗在雪里玩耍"], language=language)
        assert scores.bleu > 10, language


@pytest.mark.parametrize(("hypotheses", "references"), [(["a"], ["a", "b"]), ([], [])])
def test_lists_that_cannot_be_paired_are_refused(hypotheses: list[str], references: list[str]):
    with pytest.raises(DataError, match=f"{len(hypotheses)} translations and {len(references)} references"):
        score_translations(hypotheses, references, language="en")


def test_the_printed_table_names_every_measure_with_its_signature():
    scores = score_translations(HYPOTHESES, REFERENCES, language="en")
    printed = str(scores)
    for name, signature in scores.signatures.items():
        assert f"{getattr(scores, name):.2f}" in printed
        assert signature in printed
    assert re.search(r"BLEU, lower-cased tokenized .*case:lc.*tok:moses2017-lc\.norm\.tok-en\|smooth:none", printed)


def test_json_holds_every_field():
    scores = score_translations(HYPOTHESES, REFERENCES, language="en")
    fields = json.loads(scores.to_json())
    assert fields["bleu"] == scores.bleu
    assert fields["signatures"] == scores.signatures
    assert set(fields) == set(vars(scores))
