"""Parameter-efficient fine-tuning of Hugging Face models with PyTorch Lightning."""

from importlib.metadata import version

from peft_lightning.errors import UserError
from peft_lightning.methods import load_adapter
from peft_lightning.runs import load_run

__version__ = version("peft_lightning")
__all__ = ["UserError", "__version__", "load_adapter", "load_run"]
