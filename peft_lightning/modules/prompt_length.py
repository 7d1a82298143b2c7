"""The number of virtual tokens, checked."""

from peft_lightning.errors import UserError


def check_prompt_length(length: int) -> None:
    """Checks that there is a virtual token.

    Raises:
        UserError: There is none.
    """
    if length < 1:
        raise UserError(f"prompt_length is {length}; give a length of at least 1.")
