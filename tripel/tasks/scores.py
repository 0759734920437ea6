from dataclasses import dataclass
import sacrebleu
@dataclass(frozen=True)
class TranslationScores:
    bleu: float
    chrf: float
def score_translations(hypotheses, references, *, language):
    return TranslationScores(sacrebleu.corpus_bleu(hypotheses, [references]).score, sacrebleu.corpus_chrf(hypotheses, [references]).score)
