"""The classes that a run was started with."""

import importlib
from typing import Any

from peft_lightning.errors import UserError


def named_class(class_path: str) -> Any:
    """The class that a run's own configuration names; a user's is imported as `fit` has imported it.

    Raises:
        UserError: It cannot be imported.
    """
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"The run uses {class_path}, which cannot be imported here: {error}.") from error
