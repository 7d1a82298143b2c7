"""Windows: pieces of a context, each behind the question, with the place of every token in the context."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from lightning.pytorch.utilities import rank_zero_warn
from torch.nn.utils.rnn import pad_sequence
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from peft_lightning.data.cache import cached_map
from peft_lightning.errors import UserError

# What of an encoded question has an entry a window, beside what the tokenizer gives.
_PLACES, _POSITIONS = ("starts", "ends"), ("start_positions", "end_positions")
_KEPT = ("row", "id", "context", "answers")


@dataclass(frozen=True)
class Windowing:
    """How a context is cut into windows.

    Args:
        tokenizer: The backbone's; one of the fast ones, which know where in a text a token stands.
        max_length: Tokens of a window with question and special tokens.
        doc_stride: Tokens that a window shares with the next one.
        max_query_length: Tokens after which a question is cut.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    doc_stride: int
    max_query_length: int

    @property
    def inputs(self) -> list[str]:
        """What the tokenizer gives to the model."""
        return list(self.tokenizer("a", "a"))


def training_windows(table: Dataset, windowing: Windowing, where: str) -> Dataset:
    """Rows of one window each: what the tokenizer gives, `start_positions`, `end_positions` and `length`.

    The positions are those of the first and last token of the first gold answer. Both are 0 in a window that does not
    hold all of it, as in BERT's own script and transformers' `run_qa`.

    Args:
        table: Checked questions.
        windowing: How to cut.
        where: What to call the table in messages.

    Raises:
        UserError: A question leaves no more room than windows are to share.
    """
    features = {"row": table.features["row"]} | {name: List(Value("int32")) for name in windowing.inputs}
    features |= {name: Value("int32") for name in (*_POSITIONS, "length")}
    encoded = _encoded(table, windowing, where, False, Features(features))
    _warn_of_lost_answers(table, encoded, windowing, where)
    return encoded.remove_columns("row")


def whole_questions(table: Dataset, windowing: Windowing, where: str) -> Dataset:
    """Rows of one question each, with lists of all its windows, and `length`, the number of tokens in all of them.

    Beside what `training_windows` gives there are `row`, `id`, `context`, `answers`, and for each token `starts` and
    `ends`, its first character in the context and the one behind its last; -1 outside the context.

    Args:
        table: Checked questions.
        windowing: How to cut.
        where: What to call the table in messages.

    Raises:
        UserError: A question leaves no more room than windows are to share.
    """
    features = {name: table.features[name] for name in _KEPT} | {"length": Value("int32")}
    features |= {name: List(List(Value("int32"))) for name in (*windowing.inputs, *_PLACES)}
    features |= {name: List(Value("int32")) for name in _POSITIONS}
    return _encoded(table, windowing, where, True, Features(features))


class WindowCollator:
    """Batches of windows, or of questions whose windows are put one behind the other.

    A batch of questions has `window_counts [questions]`, `starts` and `ends` `[windows, length]`, `row [questions]`,
    and lists of `id`, `context` and `answers`.

    Args:
        tokenizer: The backbone's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.padded = DataCollatorWithPadding(tokenizer)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Pads to the longest window."""
        if "id" not in rows[0]:
            return dict(self.padded(rows))
        of_windows = [name for name in rows[0] if name not in (*_KEPT, *_PLACES)]
        windows = [
            dict(zip(of_windows, window, strict=True))
            for row in rows
            for window in zip(*(row[name] for name in of_windows), strict=True)
        ]
        batch = dict(self.padded(windows))
        for name in _PLACES:
            places = [torch.tensor(window) for row in rows for window in row[name]]
            batch[name] = pad_sequence(places, batch_first=True, padding_value=-1)
        batch["window_counts"] = torch.tensor([len(row["input_ids"]) for row in rows])
        batch["row"] = torch.tensor([row["row"] for row in rows])
        return batch | {name: [row[name] for row in rows] for name in ("id", "context", "answers")}


def _warn_of_lost_answers(table: Dataset, windows: Dataset, windowing: Windowing, where: str) -> None:
    rows, starts = (np.asarray(table.with_format("numpy")[name][:]) for name in ("row", "answer_start"))
    held, positions = (np.asarray(windows.with_format("numpy")[name][:]) for name in ("row", "end_positions"))
    lost = np.setdiff1d(rows[starts >= 0], held[positions > 0])
    if len(lost):
        rank_zero_warn(
            f"{where}: of {len(lost)} questions, the first of them row {lost[0]}, no window holds the whole answer, so "
            f"that they are trained as if they had none; give a --data.max_length above {windowing.max_length} or a "
            f"--data.doc_stride above {windowing.doc_stride}."
        )


def _encoded(table: Dataset, windowing: Windowing, where: str, whole: bool, features: Features) -> Dataset:
    if not windowing.tokenizer.is_fast:
        raise UserError(
            f"The tokenizer of backbone '{windowing.tokenizer.name_or_path}' does not know where in a text its tokens "
            "stand, which question answering needs; choose a backbone with a fast tokenizer."
        )
    return cached_map(
        table,
        _encode_batch,
        remove_columns=table.column_names,
        features=features,
        desc=f"Tokenising {where}",
        fn_kwargs={"windowing": windowing, "where": where, "whole": whole},
    )


def _encode_batch(batch: dict[str, list], windowing: Windowing, where: str, whole: bool) -> dict[str, list]:
    questions = _cut_questions(batch, windowing, where)
    encoded = windowing.tokenizer(
        questions,
        batch["context"],
        truncation="only_second",
        max_length=windowing.max_length,
        stride=windowing.doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    owners, offsets = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
    windows: dict[str, list] = {name: encoded[name] for name in windowing.inputs}
    windows |= {name: [] for name in (*_PLACES, *_POSITIONS)}
    for number, owner in enumerate(owners):
        places = np.array(offsets[number])
        places[np.array([part != 1 for part in encoded.sequence_ids(number)])] = -1
        starts, ends = places.T
        answer = (batch["answer_start"][owner], batch["answers"][owner][0]) if batch["answers"][owner] else None
        for name, value in zip((*_PLACES, *_POSITIONS), (starts, ends, *_positions(starts, ends, answer)), strict=True):
            windows[name].append(value)
    lengths = [len(ids) for ids in windows["input_ids"]]
    if not whole:
        kept = {name: values for name, values in windows.items() if name not in _PLACES}
        return kept | {"row": [batch["row"][owner] for owner in owners], "length": lengths}
    rows: dict[str, list] = {name: [[] for _ in questions] for name in windows}
    for number, owner in enumerate(owners):
        for name, values in windows.items():
            rows[name][owner].append(values[number])
    totals = np.bincount(owners, weights=lengths).astype(int).tolist()
    return {name: batch[name] for name in _KEPT} | rows | {"length": totals}


def _cut_questions(batch: dict[str, list], windowing: Windowing, where: str) -> list[str]:
    """The questions without what lies behind their last token, and without blanks around them, which are no tokens."""
    tokenizer, room = windowing.tokenizer, windowing.max_length
    room -= tokenizer.num_special_tokens_to_add(pair=True)
    stripped = [question.strip() for question in batch["question"]]
    encoded = tokenizer(
        stripped,
        add_special_tokens=False,
        truncation=True,
        max_length=windowing.max_query_length,
        return_offsets_mapping=True,
    )
    for number, offsets in enumerate(encoded["offset_mapping"]):
        left = room - len(offsets)
        if left > windowing.doc_stride:
            continue
        context = len(tokenizer(batch["context"][number], add_special_tokens=False)["input_ids"])
        if context > left:
            raise UserError(
                f"{where}, row {batch['row'][number]}: the question has {len(offsets)} tokens, which leaves {left} of "
                f"max_length {windowing.max_length} to the {context} tokens of the context, no more than the "
                f"doc_stride of {windowing.doc_stride} that windows share; give a smaller --data.doc_stride or a "
                "larger --data.max_length."
            )
    return [
        question[: offsets[-1][1]] if offsets else question
        for question, offsets in zip(stripped, encoded["offset_mapping"], strict=True)
    ]


def _positions(starts: np.ndarray, ends: np.ndarray, answer: tuple[int, str] | None) -> tuple[int, int]:
    """The first and last token of an answer in a window; (0, 0) if the window does not hold all of it."""
    inside = np.flatnonzero(starts >= 0)
    if answer is None or not len(inside):
        return 0, 0
    start, text = answer
    # A blank before the answer belongs to no token, or to the one of the word before.
    first = start + len(text) - len(text.lstrip())
    last = start + len(text.rstrip())
    if starts[inside[0]] > first or ends[inside[-1]] < last:
        return 0, 0
    begin = np.searchsorted(starts[inside], first, side="right") - 1
    return int(inside[begin]), int(inside[np.searchsorted(ends[inside], last, side="left")])
