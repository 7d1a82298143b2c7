"""The adapter as a small folder: `adapter.safetensors` and `adapter_config.json`.

The folder holds what was trained, head included, and the options of the method; no pretrained tensor, and nothing that
is executed when it is read.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from peft_lightning.errors import UserError
from peft_lightning.storage.writing import replacing

WEIGHTS = "adapter.safetensors"
CONFIG = "adapter_config.json"


def write_adapter(directory: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], overwrite: bool) -> Path:
    """Writes the two files.

    Raises:
        UserError: There are such files already and `overwrite` is false, or the directory cannot be written.
    """
    weights, description = directory / WEIGHTS, directory / CONFIG
    if not overwrite and (weights.exists() or description.exists()):
        raise UserError(f"{directory} holds an adapter already; choose another directory or pass overwrite=True.")
    text = json.dumps(config, indent=2) + "\n"
    # Cloned because safetensors refuses tensors that share memory, as tied weights do.
    separate = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(weights) as tensors_file, replacing(description) as text_file:
            save_file(separate, tensors_file)
            text_file.write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise UserError(f"The adapter cannot be written to {directory}: {error}.") from error
    return directory


def read_adapter(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the configuration.

    Raises:
        UserError: A file is missing or damaged.
    """
    try:
        return load_file(directory / WEIGHTS), json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{directory} holds no readable adapter ({error}); give a folder that save_adapter wrote, with {WEIGHTS} "
            f"and {CONFIG}."
        ) from error
