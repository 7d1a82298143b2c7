"""The modules that methods insert; plain `nn.Module`s."""

from peft_lightning.modules.bottleneck import Bottleneck, NormedBottleneck, ParallelBottleneck
from peft_lightning.modules.inhibited_low_rank import InhibitedLowRank
from peft_lightning.modules.kronecker import KroneckerBottleneck, KroneckerLinear, KroneckerRule
from peft_lightning.modules.low_rank import LowRank, PrincipalLowRank, WeightDecomposedLowRank
from peft_lightning.modules.low_rank_intervention import LowRankIntervention
from peft_lightning.modules.prefix import Prefix, PrefixTrunk, ReparametrizedPrefix, ShiftedPositions
from peft_lightning.modules.prompt import EncodedPrompt, InputPrompt, Prompt
from peft_lightning.modules.scale import ScaleInput, ScaleOutput
from peft_lightning.modules.singular_low_rank import SingularLowRank
from peft_lightning.modules.text_ends import TextEnds
from peft_lightning.modules.vector_low_rank import SharedProjection, VectorLowRank

__all__ = [
    "Bottleneck",
    "EncodedPrompt",
    "InhibitedLowRank",
    "InputPrompt",
    "KroneckerBottleneck",
    "KroneckerLinear",
    "KroneckerRule",
    "LowRank",
    "LowRankIntervention",
    "NormedBottleneck",
    "ParallelBottleneck",
    "Prefix",
    "PrefixTrunk",
    "PrincipalLowRank",
    "Prompt",
    "ReparametrizedPrefix",
    "ScaleInput",
    "ScaleOutput",
    "SharedProjection",
    "ShiftedPositions",
    "SingularLowRank",
    "TextEnds",
    "VectorLowRank",
    "WeightDecomposedLowRank",
]
