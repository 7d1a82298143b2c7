"""Metrics of written texts against reference texts: ROUGE, BLEU, chrF; all in percent, as papers print them."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import sacremoses
import torch
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor
from torchmetrics import Metric

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
ROUGE_RECIPE = "rouge-score, F-measure, Porter stemmer, mean over the examples, in percent"
LSUM_RECIPE = f"{ROUGE_RECIPE}, sentences are lines, not split by nltk"
DIACRITICS_RECIPE = "both texts: Moses punctuation normalised, Romanian diacritics removed, Moses tokenizer; {}"
# With comma or, as old encodings have it, with cedilla; letters of other languages keep their marks.
_ROMANIAN = str.maketrans("ŞşŢţȘșȚțĂăÂâÎî", "SsTtSsTtAaAaIi")


def rouge(predictions: Sequence[str], references: Sequence[str]) -> dict[str, list[float]]:
    """ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum of each pair of texts (Lin 2004), between 0 and 1.

    The F-measure of Google's package `rouge-score` with its Porter stemmer, as in the code of He et al. 2022
    (run_summarization.py). ROUGE-L takes a text as one sequence; ROUGE-Lsum takes its lines as sentences. Their code
    first puts each sentence that nltk finds on a line; here only the lines that a text has count, as nltk's model is a
    download of its own: the same number where both texts are one sentence. Over the examples their code takes the
    middle of a bootstrap, which is near the mean.
    """
    pairs = zip(references, predictions, strict=True)
    scores = [_rouge_scorer().score(reference, prediction) for reference, prediction in pairs]
    return {name: [score[name].fmeasure for score in scores] for name in ROUGE}


@cache
def _rouge_scorer() -> RougeScorer:
    return RougeScorer(ROUGE, use_stemmer=True)


class MeanPercent(Metric):
    """100 times the mean of scores between 0 and 1.

    The sum is kept in whole billionths, so that neither the order of the batches, nor the number of devices, nor a
    model in half precision, which casts the floating-point states of its metrics, changes it.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, scores: Sequence[float]) -> None:
        """Adds scores."""
        self.total += sum(round(score * 10**9) for score in scores)
        self.count += len(scores)

    def compute(self) -> Tensor:
        """The mean, a scalar; 0 of no scores."""
        mean = self.total.item() / max(self.count.item(), 1) / 10**7
        return torch.tensor(mean, device=self.total.device)


class CorpusScore(Metric):
    """A score of sacreBLEU over the whole set, from the sums of its statistics of each text.

    Counts of n-grams are whole numbers, so that several devices give exactly what `corpus_score` gives of all texts.

    Args:
        scorer: `BLEU` or `CHRF` of sacreBLEU.
        prepare: Is applied to both texts first.

    Attributes:
        signature: sacreBLEU's own description of the score.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, scorer: BLEU | CHRF, prepare: Callable[[str], str] = str):
        super().__init__()
        self.scorer = scorer
        self.prepare = prepare
        # The number of statistics, and with it of references in the signature, shows with the first text.
        self.add_state("sums", torch.zeros(self._statistics(["a"], ["a"]).shape[1:], dtype=torch.long), "sum")
        self.signature = str(scorer.get_signature())

    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        """Adds texts, each with its reference."""
        statistics = self._statistics(list(map(self.prepare, predictions)), list(map(self.prepare, references)))
        self.sums += statistics.sum(0).to(self.sums.device)

    def compute(self) -> Tensor:
        """The score between 0 and 100, a scalar."""
        score: Any = self.scorer._compute_score_from_stats(self.sums.tolist())
        return torch.tensor(score.score, device=self.sums.device)

    def _statistics(self, predictions: list[str], references: list[str]) -> Tensor:
        return torch.tensor(self.scorer._extract_corpus_statistics(predictions, [references]))


def bleu() -> CorpusScore:
    """BLEU (Papineni et al. 2002) as sacreBLEU computes it by default (Post 2018): tokenizer 13a, with case."""
    return CorpusScore(BLEU())


def chrf() -> CorpusScore:
    """The character F-score chrF2 (Popovic 2015), sacreBLEU's default: 6-grams of characters, none of words."""
    return CorpusScore(CHRF())


def bleu_no_diacritics() -> CorpusScore:
    """BLEU of Romanian without diacritics, as mBART and He et al. 2022 report it.

    Their script `romanian_postprocess.sh` runs Moses' scripts for punctuation, wmt16-scripts' for Romanian letters and
    Moses' tokenizer, then `sacrebleu -tok none -s none`. Moses' scripts are those of sacremoses here.
    """
    # `force` silences the warning that the text is tokenised already, which it is meant to be.
    return CorpusScore(BLEU(tokenize="none", smooth_method="none", force=True), without_diacritics)


def without_diacritics(text: str) -> str:
    """Romanian tokens without diacritics, joined by blanks."""
    normalizer, tokenizer = _moses()
    return str(tokenizer.tokenize(normalizer.normalize(text).translate(_ROMANIAN), return_str=True, escape=False))


@cache
def _moses() -> tuple[sacremoses.MosesPunctNormalizer, sacremoses.MosesTokenizer]:
    normalizer = sacremoses.MosesPunctNormalizer("ro", pre_replace_unicode_punct=True, post_remove_control_chars=True)
    return normalizer, sacremoses.MosesTokenizer("ro")
