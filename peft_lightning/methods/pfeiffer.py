"""Pfeiffer adapters (Pfeiffer et al. 2021, AdapterFusion, arXiv:2005.00247; code: AdapterHub's `seq_bn`).

One bottleneck a layer, around the LayerNorm of the feed-forward sub-layer: with r the sum of the sub-layer's output and
its residual, `LN(r + W_up f(W_down LN(r) + b_down) + b_up)`. The same LayerNorm is applied twice, and stays frozen.
Trained with the adapters: the head.

Parameters: `L (2 m d + m + d)`; 894,528 on BERT-base with m = d / 16 = 48.

Needs LayerNorms behind the residual, as BERT and its kin have.
"""

from typing import Any

from peft_lightning.backbone import Backbone
from peft_lightning.errors import UserError
from peft_lightning.methods.adapter_drop import AdapterMethod
from peft_lightning.methods.adapter_options import bottleneck_size
from peft_lightning.modules import Bottleneck, NormedBottleneck


class Pfeiffer(AdapterMethod):
    """Bottleneck adapters behind the feed-forward sub-layer alone.

    Args:
        bottleneck: Size m of the bottleneck; by default the hidden size divided by `reduction_factor`.
        reduction_factor: Used where no bottleneck is given; 2, 16 and 64 were tested, 16 was best.
        activation: Non-linearity f.
        init_std: Standard deviation of the initial weights, a normal distribution.
        lr: Peak learning rate of the paper and of AdapterHub's tutorial.
        weight_decay: AdamW's weight decay; the tutorial has none.
        warmup: Fraction of all steps in which the learning rate rises from 0; the tutorial has none.
        kwargs: Arguments of `AdapterMethod`.
    """

    def __init__(
        self,
        bottleneck: int | None = None,
        reduction_factor: int = 16,
        activation: str = "relu",
        init_std: float = 0.02,
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        warmup: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, warmup=warmup, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Puts an adapter around each LayerNorm of a feed-forward sub-layer."""
        options = self.hparams
        if backbone.pre_norm:
            raise UserError(
                f"This {backbone.model.config.model_type} model has its LayerNorms before the sub-layers, and Pfeiffer "
                "adapters stand around one behind them; choose Houlsby or ParallelAdapter, or another backbone."
            )
        size = bottleneck_size(backbone.width, options.bottleneck, options.reduction_factor)
        for site in self.adapter_sites(backbone, "ffn_norm"):
            adapter = Bottleneck(backbone.width, size, options.activation, options.init_std, init="normal")
            backbone.replace(site, NormedBottleneck(adapter))
