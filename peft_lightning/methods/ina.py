"""InA, inhibition adaption (Kang et al. 2024, Neural Networks 178:106410; code: ChengKang520/inhibited-lora).

`W x + b + s B f(z - p max(z))` with `z = A x` beside frozen maps: of the r units of each token the weak ones are
suppressed by a threshold, a share p of the strongest. Trained with A and B: the head. As B starts at zero, the first
output is the pretrained one. The update depends on the input through the maximum and f, so that it cannot be merged:
the official `merge`, inherited from LoRA, is wrong for it.

Parameters: as LoRA, `r (in + out)` a map; `4 r d L` for query and key.

The defaults are the paper's: query and key, GELU, s = 1 (alpha = r), p = 0.3. The official code has query, key and
value, LeakyReLU with slope 0.01 and alpha 16: `configs/method/ina_code.yaml`. It computes plain LoRA for p = 0, which
here is `LoRA`; InA with p = 0 keeps f. No learning rate of the paper is known; its uploaded models have 5e-5, which
trains LoRA too little. What is not stated (dropout, initialisation) follows the code.
"""

from collections.abc import Sequence
from typing import Any

from peft_lightning.backbone import Backbone
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.methods.targets import linear_targets
from peft_lightning.modules import InhibitedLowRank


class InA(AdaptationMethod):
    """Low-rank updates whose weak units are inhibited.

    Args:
        rank: Rank r of the update; the paper has 4 and 8.
        alpha: Numerator of the scale s = alpha / r.
        dropout: Probability with which an entry of the input is dropped before A.
        targets: Sites of linear maps.
        inhibition: Share p of each token's strongest unit that is subtracted; the paper has 0.1, 0.3 and 0.9.
        activation: Non-linearity f: gelu, leaky_relu, relu, elu or selu.
        detach_threshold: Whether the threshold is held constant in the backward pass.
        train_layer_norm: Whether the LayerNorms of the backbone are trained too, as in the official SQuAD script.
        lr: Peak learning rate.
        weight_decay: AdamW's weight decay.
        warmup: Fraction of all steps in which the learning rate rises from 0.
        kwargs: Arguments of `AdaptationMethod`.
    """

    identity_tolerance = 0.0

    def __init__(
        self,
        rank: int = 4,
        alpha: float = 4.0,
        dropout: float = 0.1,
        targets: Sequence[str] = ("query", "key"),
        inhibition: float = 0.3,
        activation: str = "gelu",
        detach_threshold: bool = False,
        train_layer_norm: bool = False,
        lr: float = 5e-4,
        weight_decay: float = 0.0,
        warmup: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, warmup=warmup, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Puts an update beside each target map."""
        options = self.hparams
        for site, linear in linear_targets(backbone, options.targets):
            update = InhibitedLowRank(
                linear.in_features,
                linear.out_features,
                options.rank,
                options.alpha,
                options.dropout,
                options.inhibition,
                options.activation,
                options.detach_threshold,
            )
            backbone.replace(site, update)
        if options.train_layer_norm:
            backbone.unfreeze(*backbone.layer_norms, role="layer_norm")
