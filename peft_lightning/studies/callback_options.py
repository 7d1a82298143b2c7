"""Options of callbacks in the grid of a study: `callbacks.InitScale.std`."""

import re
from collections.abc import Mapping
from typing import Any

CALLBACKS = "callbacks"
_OPTION = re.compile(rf"{CALLBACKS}\.([\w.]+)\.(\w+)")


def is_callback_option(option: str) -> bool:
    """Whether an option of the grid is one of a callback; CLASS may be a bare name or a dotted path."""
    return bool(_OPTION.fullmatch(option))


def with_callback_options(trainer: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the trainer with these options of its callbacks.

    Args:
        trainer: The configuration; it stays as it is.
        options: `callbacks.CLASS.OPTION` -> value; a callback that the trainer lacks is added.
    """
    callbacks = [
        {"class_path": entry["class_path"], "init_args": dict(entry.get("init_args", {}))}
        for entry in trainer.get("callbacks") or []
    ]
    for option, value in options.items():
        matched = _OPTION.fullmatch(option)
        assert matched is not None, "grids are checked when a study is read"
        class_path, name = matched.groups()
        found = next((entry for entry in callbacks if entry["class_path"] == class_path), None)
        if found is None:
            found = {"class_path": class_path, "init_args": {}}
            callbacks.append(found)
        found["init_args"][name] = value
    return {**trainer, "callbacks": callbacks}
