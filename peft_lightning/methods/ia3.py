"""(IA)^3 (Liu et al. 2022, arXiv:2205.05638; code: r-three/t-few).

Learned vectors multiply keys, values and the inner activations of the feed-forward sub-layer, elementwise:
`k <- l_k * k`, `v <- l_v * v`, `W_2 (l_ff * f(W_1 x + b_1)) + b_2`. All start at ones, so that the first output is the
pretrained one, and merge into the weights. Trained with them: the head.

The paper's model is an encoder-decoder, T0, whose decoder has keys and values in its cross attention scaled too: there
give the targets `[key,value,cross_key,cross_value,ffn_out]`.

Parameters: `L (2 d + d_ff)`; 55,296 on BERT-base.

Two libraries do something else under this name: AdapterHub scales before f (here: target `ffn_in`), PEFT's default
pattern also scales the attention output (here: target `attention_dense`).
"""

from collections.abc import Sequence
from typing import Any

from peft_lightning.backbone import Backbone
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.methods.targets import linear_targets
from peft_lightning.modules import ScaleInput, ScaleOutput

INPUT_SIDE = ("ffn_out", "attention_dense", "cross_attention_dense")


class IA3(AdaptationMethod):
    """Rescales keys, values and inner activations.

    Args:
        targets: Sites of linear maps: `ffn_out`, `attention_dense` and `cross_attention_dense` have their input
            scaled, all others their output.
        lr: Peak learning rate; the paper has 3e-3.
        weight_decay: AdamW's weight decay.
        warmup: Fraction of all steps in which the learning rate rises from 0 (the official configuration).
        kwargs: Arguments of `AdaptationMethod`.
    """

    identity_tolerance = 0.0

    def __init__(
        self,
        targets: Sequence[str] = ("key", "value", "ffn_out"),
        lr: float = 3e-3,
        weight_decay: float = 0.0,
        warmup: float = 0.06,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, warmup=warmup, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Puts a vector at each target map."""
        for site, linear in linear_targets(backbone, self.hparams.targets):
            input_side = site.name in INPUT_SIDE
            scale = ScaleInput(linear.in_features) if input_side else ScaleOutput(linear.out_features)
            backbone.replace(site, scale)
