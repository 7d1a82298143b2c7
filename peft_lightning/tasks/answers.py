"""How right an answer is: exact match and F1, as SQuAD's evaluators count them (Rajpurkar et al. 2016 and 2018)."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
# ASCII only, as in the evaluators: a long dash or a curly quote stays.
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """The text in lower case, without punctuation and articles, with single blanks: in this order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, gold: Sequence[str], no_answer: bool) -> int:
    """1 if the answer equals one of the gold answers once both are normalised, else 0.

    Args:
        answer: What was predicted; empty means that there is no answer.
        gold: The gold answers; none means that there is no answer.
        no_answer: Whether there may be none: version 2.0 counts, else version 1.1.
    """
    return max(int(normalised(answer) == normalised(true)) for true in _counted(gold, no_answer))


def f1(answer: str, gold: Sequence[str], no_answer: bool) -> float:
    """The best F1, over the gold answers, of the bags of words of the normalised texts, from 0 to 1.

    Where one of two texts has no words left, version 1.1 gives 0 and version 2.0 gives 1 if the other has none either.

    Args:
        answer: What was predicted; empty means that there is no answer.
        gold: The gold answers; none means that there is no answer.
        no_answer: Whether there may be none: version 2.0 counts, else version 1.1.
    """
    return max(
        _f1(normalised(answer).split(), normalised(true).split(), no_answer) for true in _counted(gold, no_answer)
    )


def _counted(gold: Sequence[str], no_answer: bool) -> Sequence[str]:
    if not no_answer:
        return gold
    return [true for true in gold if normalised(true)] or [""]


def _f1(answer: Sequence[str], true: Sequence[str], no_answer: bool) -> float:
    if no_answer and not (answer and true):
        return float(answer == true)
    common = sum((Counter(answer) & Counter(true)).values())
    if not common:
        return 0.0
    # In the order of the evaluators' own arithmetic, so that not even the last digit differs.
    precision, recall = 1.0 * common / len(answer), 1.0 * common / len(true)
    return (2 * precision * recall) / (precision + recall)
