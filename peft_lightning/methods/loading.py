"""From a file back to the trained method."""

from pathlib import Path
from typing import Any

import torch

from peft_lightning.errors import UserError
from peft_lightning.methods.adapter_file import read_adapter
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.methods.trained_state import RECORD


def load_checkpoint(path: str | Path, **options: Any) -> AdaptationMethod:
    """The method that a run saved, with its trained weights, in evaluation mode.

    Args:
        path: A checkpoint of a run, for example `RUN/checkpoints/best.ckpt`.
        options: Override what the file says, for example `backbone="/data/roberta-base"`.

    Raises:
        UserError: The file cannot be read, or does not fit the method that it names.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"Checkpoint {path} cannot be read ({_first_line(error)}); give one that a run wrote."
        ) from error
    if not isinstance(checkpoint, dict) or RECORD not in checkpoint:
        raise UserError(f"{path} was not written by peft_lightning; give a checkpoint of one of its runs.")
    return _build(checkpoint[RECORD]["method"], checkpoint, options, str(path))


def load_adapter(directory: str | Path, **options: Any) -> AdaptationMethod:
    """The method that `save_adapter` wrote, on its backbone, in evaluation mode.

    Args:
        directory: The folder with the two files.
        options: Override what the file says, for example `backbone="/data/roberta-base"`.

    Raises:
        UserError: The files cannot be read, or do not hold exactly the tensors that the method trains.
    """
    tensors, config = read_adapter(Path(directory))
    if RECORD not in config or "hyper_parameters" not in config:
        raise UserError(f"{directory} was not written by peft_lightning; give a folder that save_adapter wrote.")
    checkpoint = config | {"state_dict": tensors}
    return _build(config[RECORD]["method"], checkpoint, options, str(directory))


def _build(class_path: str, checkpoint: dict[str, Any], options: dict[str, Any], source: str) -> AdaptationMethod:
    method = _imported_method(class_path, source)(**checkpoint["hyper_parameters"] | options)
    method.on_load_checkpoint(checkpoint)
    method.load_state_dict(checkpoint["state_dict"])
    return method.eval()


def _imported_method(class_path: str, source: str) -> type[AdaptationMethod]:
    """The class of that name among those already imported: a file must not make us import code."""
    known = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in _subclasses(AdaptationMethod)}
    if class_path not in known:
        raise UserError(
            f"{source} was trained by {class_path}, which is not imported; "
            f"import {class_path.rpartition('.')[0]} first."
        )
    return known[class_path]


def _subclasses(cls: type[AdaptationMethod]) -> list[type[AdaptationMethod]]:
    children = cls.__subclasses__()
    return children + [found for child in children for found in _subclasses(child)]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
