"""The modules that methods insert; plain `nn.Module`s."""

from peft_lightning.modules.bottleneck import Bottleneck
from peft_lightning.modules.low_rank import LowRank
from peft_lightning.modules.prefix import Prefix, ShiftedPositions

__all__ = ["Bottleneck", "LowRank", "Prefix", "ShiftedPositions"]
