"""How many tokens examples have before anything is cut: functions from a batch of checked rows to numbers by name."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


def of_texts(
    batch: dict[str, list], columns: Sequence[str], tokenizer: PreTrainedTokenizerBase, word: str | None = None
) -> dict[str, list[int]]:
    """A text, or a pair as one sequence.

    Args:
        batch: Checked rows.
        columns: The column of the text, or of both.
        tokenizer: The backbone's.
        word: Column of what stands, with a colon, before each text.
    """
    texts = [batch[column] for column in columns]
    if word:
        texts = [[f"{name}: {text}" for name, text in zip(batch[word], column, strict=True)] for column in texts]
    return {"": _counts(tokenizer(*texts, verbose=False))}


def of_choices(batch: dict[str, list], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """The longest choice of a row with its context."""
    rows = [
        _counts(tokenizer([text] * len(choices), choices, verbose=False))
        for text, choices in zip(batch["text"], batch["choices"], strict=True)
    ]
    return {"": [max(counts) for counts in rows]}


def of_words(batch: dict[str, list], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """The words of a sentence."""
    return {"": _counts(tokenizer(batch["tokens"], is_split_into_words=True, verbose=False))}


def of_sources_and_targets(
    batch: dict[str, list], tokenizer: PreTrainedTokenizerBase, prefix: str
) -> dict[str, list[int]]:
    """What is read, with what stands before it, and what is to be written."""
    sources = tokenizer([prefix + text for text in batch["text"]], verbose=False)
    return {"source": _counts(sources), "target": _counts(tokenizer(text_target=batch["target"], verbose=False))}


def _counts(encoded: dict[str, list[list[int]]]) -> list[int]:
    return [len(ids) for ids in encoded["input_ids"]]
