"""What benchmarks share whose publisher has no validation split."""

from typing import Any

from peft_lightning.data.text import TextDataModule
from peft_lightning.errors import UserError


class NoValidation(TextDataModule):
    """Texts and labels of which some training rows are held out for validation, unless there is such a split.

    Args:
        source: Hub id, local directory or file.
        validation_size: Number of training rows to hold out.
        kwargs: Arguments of `TextDataModule`.

    Raises:
        UserError: The size is not positive.
    """

    def __init__(self, source: str, validation_size: int, **kwargs: Any):
        super().__init__(source=source, **kwargs)
        if validation_size < 1:
            raise UserError(f"validation_size is {validation_size}; give at least 1.")
        self.validation_size = validation_size

    @property
    def split_off(self) -> dict[str, float | int]:
        """The validation split."""
        return {} if "validation" in self.raw else {"validation": self.validation_size}
