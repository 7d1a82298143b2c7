"""The exceptions that mean: what the user gave cannot be right, or training cannot go on with it."""

from collections.abc import Mapping
from typing import Any, ClassVar


class UserError(Exception):
    """Bad input, told in one sentence that names the option, file, row, column or key and says what to do.

    The command line prints the sentence without a traceback and exits with `exit_status`.
    """

    exit_status: ClassVar[int] = 1


class TrainingError(UserError):
    """Training came to no end, for a reason that has a status of its own in `result.json`.

    Args:
        sentence: What happened, and what to do.
        details: What `result.json` tells of it.
    """

    status: ClassVar[str] = "failed"

    def __init__(self, sentence: str, details: Mapping[str, Any] | None = None):
        super().__init__(sentence)
        self.details = dict(details or {})


class NonFiniteError(TrainingError):
    """A loss, a gradient or a weight is infinite or not a number."""

    exit_status = 3
    status = "nonfinite"


class OutOfMemoryError(TrainingError):
    """The machine or the device has less memory than is needed.

    Attributes:
        tries_again: Whether the run is to be started again, with smaller batches.
    """

    exit_status = 4
    status = "oom"
    tries_again = False
