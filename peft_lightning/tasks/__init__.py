"""What benchmarks ask: head, loss, metrics and decoding."""

from collections.abc import Mapping
from typing import Any

from peft_lightning.errors import UserError
from peft_lightning.tasks.base import Batch, Task
from peft_lightning.tasks.classification import Classification
from peft_lightning.tasks.multiple_choice import MultipleChoice
from peft_lightning.tasks.question_answering import QuestionAnswering
from peft_lightning.tasks.regression import Regression
from peft_lightning.tasks.sequence_to_sequence import SequenceToSequence
from peft_lightning.tasks.token_classification import TokenClassification

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "multiple_choice": MultipleChoice,
    "question_answering": QuestionAnswering,
    "regression": Regression,
    "sequence_to_sequence": SequenceToSequence,
    "token_classification": TokenClassification,
}


def build_task(description: Mapping[str, Any]) -> Task:
    """The task that a DataModule describes.

    Args:
        description: `type`, a key of `TASKS`, and the arguments of that class.

    Raises:
        UserError: There is no task of this type, or no such metric to monitor.
    """
    options = dict(description)
    kind = options.pop("type", None)
    if kind not in TASKS:
        raise UserError(f"There is no task '{kind}'; the tasks are {', '.join(TASKS)}.")
    try:
        task = TASKS[kind](**options)
    except TypeError as error:
        raise UserError(f"The description of the task '{kind}' is wrong: {error}.") from error
    task.check_monitor()
    return task


__all__ = [
    "TASKS",
    "Batch",
    "Classification",
    "MultipleChoice",
    "QuestionAnswering",
    "Regression",
    "SequenceToSequence",
    "Task",
    "TokenClassification",
    "build_task",
]
