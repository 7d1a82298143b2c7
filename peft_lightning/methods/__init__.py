"""The adaptation methods, one LightningModule each."""

from peft_lightning.methods.adalora import AdaLoRA
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.methods.bitfit import BitFit
from peft_lightning.methods.compacter import Compacter
from peft_lightning.methods.full_fine_tuning import FullFineTuning
from peft_lightning.methods.houlsby import Houlsby
from peft_lightning.methods.ia3 import IA3
from peft_lightning.methods.ina import InA
from peft_lightning.methods.layer_norm_tuning import LayerNormTuning
from peft_lightning.methods.linear_probe import LinearProbe
from peft_lightning.methods.loading import load_adapter, load_checkpoint, read_checkpoint
from peft_lightning.methods.lora import LoRA
from peft_lightning.methods.loreft import LoReFT
from peft_lightning.methods.mam import MAM
from peft_lightning.methods.parallel_adapter import ParallelAdapter
from peft_lightning.methods.parameters import ParameterReport
from peft_lightning.methods.pfeiffer import Pfeiffer
from peft_lightning.methods.prefix_tuning import PrefixTuning
from peft_lightning.methods.prompt_tuning import PromptTuning
from peft_lightning.methods.ptuning import PTuning
from peft_lightning.methods.ptuning_v2 import PTuningV2
from peft_lightning.methods.top_layers import TopLayers
from peft_lightning.methods.vera import VeRA

__all__ = [
    "IA3",
    "MAM",
    "AdaLoRA",
    "AdaptationMethod",
    "BitFit",
    "Compacter",
    "FullFineTuning",
    "Houlsby",
    "InA",
    "LayerNormTuning",
    "LinearProbe",
    "LoRA",
    "LoReFT",
    "PTuning",
    "PTuningV2",
    "ParallelAdapter",
    "ParameterReport",
    "Pfeiffer",
    "PrefixTuning",
    "PromptTuning",
    "TopLayers",
    "VeRA",
    "load_adapter",
    "load_checkpoint",
    "read_checkpoint",
]
