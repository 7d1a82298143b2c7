"""Which questions are right: checked before any is turned into tokens."""

from typing import Any

from datasets import Dataset, Features, List, Value

from peft_lightning.data.cache import cached_map
from peft_lightning.data.rows import check_texts
from peft_lightning.errors import UserError

COLUMNS = ("id", "question", "context", "answers")
_FEATURES = Features(
    {
        "row": Value("int64"),
        "id": Value("string"),
        "question": Value("string"),
        "context": Value("string"),
        "answers": List(Value("string")),
        "answer_start": Value("int64"),
    }
)


def checked_questions(table: Dataset, where: str, version: str) -> Dataset:
    """Rows with `row` from 1, `id`, `question`, `context`, `answers`, all gold texts, and `answer_start` of the first.

    `answer_start` is -1 where there is no answer.

    Args:
        table: Questions with the columns of the Hub.
        where: What to call the table in messages.
        version: `1.1`, in which every question has an answer, or `2.0`.

    Raises:
        UserError: A column is missing, a text or an id empty, an answer not where it is said to be, or
            missing in version 1.1.
    """
    for column in COLUMNS:
        if column not in table.column_names:
            raise UserError(
                f"{where} has no column '{column}'; it has {', '.join(table.column_names)}, and SQuAD has "
                f"{', '.join(COLUMNS)}: give data laid out like that."
            )
    for row, name in enumerate(table["id"], start=1):
        if not isinstance(name, str) or not name:
            raise UserError(f"{where}, row {row}: column 'id' holds {name!r}; give each question an id.")
    return cached_map(
        table,
        _check_batch,
        with_indices=True,
        remove_columns=table.column_names,
        features=_FEATURES,
        desc=f"Checking {where}",
        fn_kwargs={"where": where, "version": version},
    )


def _check_batch(batch: dict[str, list], indices: list[int], where: str, version: str) -> dict[str, list]:
    for column in ("question", "context"):
        check_texts(batch[column], where, column, first_row=indices[0] + 1)
    rows: dict[str, list] = {"answers": [], "answer_start": []}
    for number, (index, answers) in enumerate(zip(indices, batch["answers"], strict=True)):
        place = f"{where}, row {index + 1} (id '{batch['id'][number]}')"
        texts, starts = _answers(answers, place)
        if version == "1.1" and not texts:
            raise UserError(
                f"{place}: there is no answer, and every question of version 1.1 has one; give --data.version 2.0."
            )
        for text, start in zip(texts, starts, strict=True):
            _check_span(batch["context"][number], text, start, place)
        rows["answers"].append(texts)
        rows["answer_start"].append(starts[0] if starts else -1)
    kept = {column: batch[column] for column in ("id", "question", "context")}
    return {"row": [index + 1 for index in indices], **kept, **rows}


def _answers(answers: Any, place: str) -> tuple[list[str], list[int]]:
    if not isinstance(answers, dict) or not {"text", "answer_start"} <= answers.keys():
        raise UserError(
            f"{place}: column 'answers' holds {answers!r:.80}, not the lists 'text' and 'answer_start'; correct it."
        )
    texts, starts = answers["text"], answers["answer_start"]
    if len(texts) != len(starts):
        raise UserError(f"{place}: there are {len(texts)} answers and {len(starts)} places of answers; correct them.")
    return texts, starts


def _check_span(context: str, text: str, start: int, place: str) -> None:
    if not text.strip():
        raise UserError(f"{place}: an answer is empty; correct it, or remove it if there is no answer.")
    if start < 0 or context[start : start + len(text)] != text:
        there = context[start : start + len(text)] if start >= 0 else ""
        raise UserError(
            f"{place}: the answer {text!r} is not in its context: from character {start} that reads {there!r}; correct "
            "the answer or its answer_start."
        )
