"""The adaptation methods, one LightningModule each."""

from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.methods.full_fine_tuning import FullFineTuning
from peft_lightning.methods.houlsby import Houlsby
from peft_lightning.methods.linear_probe import LinearProbe
from peft_lightning.methods.loading import load_adapter, load_checkpoint, read_checkpoint
from peft_lightning.methods.lora import LoRA
from peft_lightning.methods.parameters import ParameterReport
from peft_lightning.methods.ptuning_v2 import PTuningV2

__all__ = [
    "AdaptationMethod",
    "FullFineTuning",
    "Houlsby",
    "LinearProbe",
    "LoRA",
    "PTuningV2",
    "ParameterReport",
    "load_adapter",
    "load_checkpoint",
    "read_checkpoint",
]
