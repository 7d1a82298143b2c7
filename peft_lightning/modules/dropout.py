"""Dropout whose probability is checked."""

from torch import nn

from peft_lightning.errors import UserError


def make_dropout(probability: float) -> nn.Dropout:
    """A dropout layer.

    Raises:
        UserError: The probability is below 0 or not below 1.
    """
    if not 0 <= probability < 1:
        raise UserError(f"dropout is {probability}; give a probability of at least 0 and below 1.")
    return nn.Dropout(probability)
