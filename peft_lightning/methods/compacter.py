"""Compacter (Karimi Mahabadi et al. 2021, arXiv:2106.04647; code: rabeehk/compacter).

Houlsby's two adapters a layer, with matrices `H = sum_{i=1..n} A_i (x) (s_i t_i)`: Kronecker products of n matrices
`A_i [n, n]`, which all adapters share, with products of rank 1. Compacter++ is `placement: [ffn]`. Trained with them:
LayerNorms and head.

Parameters: `2 L 3 (d + m) + n^3`, half the first term for Compacter++.
"""

from collections.abc import Sequence
from typing import Any

from peft_lightning.backbone import Backbone
from peft_lightning.methods.adapter_drop import AdapterMethod
from peft_lightning.methods.adapter_options import bottleneck_size, sub_layer_outputs
from peft_lightning.modules import KroneckerBottleneck, KroneckerRule


class Compacter(AdapterMethod):
    """Bottleneck adapters of Kronecker products.

    Args:
        n: Number and size of the shared matrices; it has to divide the hidden size and the bottleneck.
        bottleneck: Size m of the bottleneck; by default the hidden size divided by `reduction_factor`.
        reduction_factor: Used where no bottleneck is given.
        activation: Non-linearity.
        placement: Which sub-layers have adapters: attention, ffn, or both.
        train_layer_norm: Whether the LayerNorms of the backbone are trained too.
        lr: Peak learning rate of the official configuration.
        weight_decay: AdamW's weight decay.
        kwargs: Arguments of `AdapterMethod`.
    """

    identity_tolerance = 1e-3

    def __init__(
        self,
        n: int = 4,
        bottleneck: int | None = None,
        reduction_factor: int = 32,
        activation: str = "gelu_new",
        placement: Sequence[str] = ("attention", "ffn"),
        train_layer_norm: bool = True,
        lr: float = 3e-3,
        weight_decay: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Inserts the adapters around one shared rule and unfreezes the LayerNorms."""
        options = self.hparams
        size = bottleneck_size(backbone.width, options.bottleneck, options.reduction_factor)
        rule = KroneckerRule(options.n)
        for site in self.adapter_sites(backbone, *sub_layer_outputs(options.placement)):
            backbone.insert_after(site, KroneckerBottleneck(backbone.width, size, rule, options.activation))
        if options.train_layer_norm:
            self.train_layer_norms(backbone)
