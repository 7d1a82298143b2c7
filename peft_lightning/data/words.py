"""From words with tags to tokens, and where the words begin among them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from peft_lightning.errors import UserError
from peft_lightning.tasks.chunks import as_bio, is_tag
from peft_lightning.tasks.token_classification import PADDING


def check_words(
    batch: dict[str, list],
    indices: list[int],
    where: str,
    column: str,
    names: Sequence[str],
    declared: list[str] | None,
) -> dict[str, list]:
    """Rows of words and the numbers of their tags in BIO.

    Args:
        batch: Published rows: `tokens`, the tags, and perhaps `line`, where in its file a sentence begins.
        indices: Their places in the table, from 0.
        where: What to call the table in messages.
        column: The column of the tags.
        names: The tags that there may be, in the order of their numbers.
        declared: The tags that numbers in the column stand for, if they do.

    Raises:
        UserError: A row has no list of words, an empty one, as many tags as not words, or a tag that there is not.
    """
    numbers = {name: number for number, name in enumerate(names)}
    rows: dict[str, list] = {"row": [], "tokens": [], "tags": []}
    lines = batch.get("line", [None] * len(indices))
    for index, tokens, tags, line in zip(indices, batch["tokens"], batch[column], lines, strict=True):
        row = f"{where}, row {index + 1}"
        for name, cell in (("tokens", tokens), (column, tags)):
            if cell is not None and not isinstance(cell, list):
                raise UserError(
                    f"{row}: column '{name}' holds {cell!r:.80}, which is no list; give a list with an entry for each "
                    "word."
                )
        if not tokens:
            raise UserError(f"{row}: column 'tokens' holds no words; correct the row or remove it.")
        if tags is None or len(tags) != len(tokens):
            raise UserError(
                f"{row}: {len(tokens)} words have {len(tags or [])} tags in column '{column}'; give each word one."
            )
        places = [f"{row}, word {word}" + (f" (line {line + word - 1})" if line else "") for word in _counted(tokens)]
        for token, place in zip(tokens, places, strict=True):
            if not isinstance(token, str) or not token.strip():
                raise UserError(f"{place}: column 'tokens' holds {token!r}, which is no word; correct the row.")
        read = [_read(tag, declared, column, place) for tag, place in zip(tags, places, strict=True)]
        converted = as_bio(read)
        for tag, place in zip(converted, places, strict=True):
            if tag not in numbers:
                raise UserError(
                    f"{place}: column '{column}' holds {tag!r}, which is not one of the tags {list(names)}; correct "
                    "the row, or declare the tag with --data.labels."
                )
        rows["row"].append(index + 1)
        rows["tokens"].append(tokens)
        rows["tags"].append([numbers[tag] for tag in converted])
    return rows


def encode_words(batch: dict[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list]:
    """Tokens of sentences, `words`, the position of the first token of each word or -1, and `length`."""
    encoded = tokenizer(batch["tokens"], is_split_into_words=True, truncation=True, max_length=max_length)
    words = []
    for number, tokens in enumerate(batch["tokens"]):
        first = [-1] * len(tokens)
        for position, word in enumerate(encoded.word_ids(number)):
            if word is not None and first[word] == -1:
                first[word] = position
        words.append(first)
    return {**encoded, "words": words, "length": [len(ids) for ids in encoded["input_ids"]]}


def padded_words(rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A batch: the tokenizer's tensors, `words` and `tags`, each padded to the longest row."""
    own = ("words", "tags")
    batch = tokenizer.pad(
        {name: [row[name] for row in rows] for name in rows[0] if name not in own}, return_tensors="pt"
    )
    padded = {
        name: pad_sequence([torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=PADDING)
        for name in own
    }
    return {**batch, **padded}


def _read(tag: Any, declared: list[str] | None, column: str, place: str) -> str:
    if declared is not None and isinstance(tag, int) and 0 <= tag < len(declared):
        tag = declared[tag]
    if isinstance(tag, str) and is_tag(tag):
        return tag
    unlabelled = "; -1 marks unlabelled rows, which can only be predicted" if tag == -1 else ""
    raise UserError(f"{place}: column '{column}' holds {tag!r}, which is no tag{unlabelled}; give O, B-TYPE or I-TYPE.")


def _counted(tokens: Sequence[Any]) -> range:
    return range(1, len(tokens) + 1)
