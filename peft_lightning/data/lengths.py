"""How many tokens examples have before anything is cut: functions from a batch of checked rows to numbers by name."""

from collections.abc import Callable, Mapping, Sequence

from transformers import PreTrainedTokenizerBase


def of_texts(
    batch: dict[str, list],
    tokenizer: PreTrainedTokenizerBase,
    columns: Sequence[str] = (),
    compose: Callable[[Mapping[str, list]], Mapping[str, list]] | None = None,
) -> dict[str, list[int]]:
    """A text, or a pair as one sequence.

    Args:
        batch: Checked rows.
        tokenizer: The backbone's.
        columns: The column of the text, or of both.
        compose: Makes of the rows, instead, the text, or both.
    """
    texts = list(compose(batch).values()) if compose else [batch[column] for column in columns]
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
