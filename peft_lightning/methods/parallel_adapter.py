"""Parallel adapters (He et al. 2022, arXiv:2110.04366; code: jxhe/unify-parameter-efficient-tuning).

`f' = f + s (W_up relu(W_down x + b_down) + b_up)`, where f is the output of a sub-layer before its residual is added
and x what enters it; where norms stand before the sub-layers, x has passed the norm, as in the released script for
mBART. With a scale s other than 1 this is the paper's scaled parallel adapter. Trained with them: the head.

Parameters: `L (2 r d + r + d)` a sub-layer; the paper does not count the biases.

The released GLUE script is very likely not what the paper says of its initialisation: loading draws W_up again.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from peft_lightning.backbone import Backbone
from peft_lightning.methods.adapter_drop import AdapterMethod
from peft_lightning.methods.adapter_options import sub_layer_outputs
from peft_lightning.modules import Bottleneck, ParallelBottleneck
from peft_lightning.modules.bottleneck import BottleneckInit


class ParallelAdapter(AdapterMethod):
    """Bottlenecks beside sub-layers.

    Args:
        bottleneck: Size r of the bottleneck; the paper has 512 on XSum, its GLUE script 16.
        scale: Factor s of the update; the paper has 4 on XSum, its GLUE script 2.
        learned_scale: Whether s is trained (no better, says the paper).
        placement: Which sub-layers have adapters: ffn (better), attention, or both.
        activation: Non-linearity.
        dropout: Probability with which an entry of the bottleneck is dropped.
        init: `lora` (Kaiming uniform and zero), or `normal` with `init_std`.
        init_std: Standard deviation of the initial weights where `init` is a normal distribution.
        lr: Peak learning rate; the paper has 1e-4 on GLUE and 5e-5 on XSum.
        weight_decay: AdamW's weight decay; 0.1 on GLUE, 0.01 on XSum (Table 8).
        warmup: Fraction of all steps in which the learning rate rises from 0; 0.06 on GLUE (Table 8).
        kwargs: Arguments of `AdapterMethod`.
    """

    identity_tolerance: ClassVar[float | None] = 0.0

    def __init__(
        self,
        bottleneck: int = 16,
        scale: float = 2.0,
        learned_scale: bool = False,
        placement: Sequence[str] = ("ffn",),
        activation: str = "relu",
        dropout: float = 0.1,
        init: BottleneckInit = "lora",
        init_std: float = 0.02,
        lr: float = 1e-4,
        weight_decay: float = 0.1,
        warmup: float = 0.06,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, warmup=warmup, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Inserts the adapters."""
        options = self.hparams
        for site in self.adapter_sites(backbone, *sub_layer_outputs(options.placement)):
            adapter = Bottleneck(
                backbone.width,
                options.bottleneck,
                options.activation,
                options.init_std,
                options.init,
                dropout=options.dropout,
            )
            backbone.insert_beside(site, ParallelBottleneck(adapter, options.scale, options.learned_scale))
