"""From a file back to the trained method."""

import pickle
from pathlib import Path
from typing import Any

import torch

from peft_lightning.errors import UserError
from peft_lightning.methods.adapter_file import read_adapter
from peft_lightning.methods.arguments import constructor_options
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.methods.trained_state import RECORD, check_format, class_name
from peft_lightning.storage.generations import damage_of


def load_checkpoint(path: str | Path, **options: Any) -> AdaptationMethod:
    """The method that a run saved, with its trained weights, in evaluation mode.

    Args:
        path: A checkpoint of a run, for example `RUN/checkpoints/best.ckpt`.
        options: Override what the file says, for example `backbone="/data/roberta-base"`.

    Raises:
        UserError: The file cannot be read, or does not fit the method that it names.
    """
    return _build(read_checkpoint(path), options, str(path))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, without running anything that a file asks for.

    Raises:
        UserError: The file cannot be read, is not what was saved or is none of ours.
    """
    if damage := damage_of(Path(path)):
        raise UserError(f"Checkpoint {path} cannot be read (it {damage}); give one that a run wrote.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"Checkpoint {path} cannot be read: it holds something else than tensors and plain values, which could run "
            "code and is not loaded; give one that a run wrote."
        ) from error
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"Checkpoint {path} cannot be read ({reason}); give one that a run wrote.") from error
    if not isinstance(content, dict) or not {RECORD, "hyper_parameters", "state_dict"} <= content.keys():
        raise UserError(f"{path} was not written by peft_lightning; give a checkpoint of one of its runs.")
    return content


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
    return _build(config | {"state_dict": tensors}, options, str(directory))


def _build(checkpoint: dict[str, Any], options: dict[str, Any], source: str) -> AdaptationMethod:
    check_format(checkpoint[RECORD], source)
    cls = _imported_method(checkpoint[RECORD]["method"], source)
    unknown = sorted(checkpoint["hyper_parameters"].keys() - constructor_options(cls))
    if unknown:
        raise UserError(
            f"{source} gives {cls.__name__} the option '{unknown[0]}', which it does not have in this version of "
            "peft_lightning; load the file with the version that wrote it."
        )
    method = cls(**checkpoint["hyper_parameters"] | options)
    method.on_load_checkpoint(checkpoint)
    method.load_state_dict(checkpoint["state_dict"])
    return method.eval()


def _imported_method(class_path: str, source: str) -> type[AdaptationMethod]:
    """The class of that path, or else the only one of that name, among those already imported.

    A file must not make us import code. Of classes that were defined again, as in a notebook, it is the last.
    """
    classes = _subclasses(AdaptationMethod)
    at_path = [cls for cls in classes if f"{cls.__module__}.{cls.__qualname__}" == class_path]
    of_name = [cls for cls in classes if cls.__name__ == class_name(class_path)]
    if not at_path and len(of_name) != 1:
        raise UserError(
            f"{source} was trained by {class_path}, which is not imported; import the module that defines it first."
        )
    return at_path[-1] if at_path else of_name[0]


def _subclasses(cls: type[AdaptationMethod]) -> list[type[AdaptationMethod]]:
    children = cls.__subclasses__()
    return children + [found for child in children for found in _subclasses(child)]
