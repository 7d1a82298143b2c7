"""What benchmarks share whose test split has no published labels."""

from typing import Any

from peft_lightning.data.base import Benchmark
from peft_lightning.errors import UserError


class HeldOut(Benchmark):
    """Evaluates the published validation split, on which papers report such benchmarks, or rows held out from training.

    By default `validate` goes over the published validation split, which so also chooses the best checkpoint, and there
    is nothing to `test` on. With `validation_size` training rows are held out to choose by, and `test` goes over the
    published validation split, which then has chosen nothing. `predict` goes over the test split.

    Args:
        source: Hub id, local directory or file.
        validation_size: Number of training rows to hold out.
        kwargs: Arguments of `Benchmark`.

    Raises:
        UserError: The size is not positive.
    """

    def __init__(self, source: str, validation_size: int | None = None, **kwargs: Any):
        super().__init__(source=source, **kwargs)
        if validation_size is not None and validation_size < 1:
            raise UserError(f"validation_size is {validation_size}; give at least 1.")
        self.validation_size = validation_size

    @property
    def split_off(self) -> dict[str, float | int]:
        """The rows that are held out."""
        return {} if self.validation_size is None else {"held_out": self.validation_size}

    def published(self, kind: str) -> dict[str, str]:
        """The published sets to validate on or to predict, as in `evaluated`.

        Args:
            kind: `validation` or `test`.
        """
        return {"": kind}

    def evaluated(self, stage: str) -> dict[str, str]:
        """Held-out rows, or published sets.

        Raises:
            UserError: There is nothing to test on.
        """
        if stage == "predict":
            return self.published("test")
        if stage == "validate" and self.validation_size is not None:
            return {"": "held_out"}
        if stage == "test" and self.validation_size is None:
            raise UserError(
                f"{type(self).__name__} publishes no labels of its test split: validate RUN gives the results on the "
                "validation split that papers report, predict RUN labels the test split; to choose the best checkpoint "
                "on other rows than those that are reported, train with --data.validation_size, and test."
            )
        return self.published("validation")
