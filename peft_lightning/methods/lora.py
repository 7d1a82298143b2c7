"""LoRA (Hu et al. 2021, arXiv:2106.09685; code: microsoft/LoRA).

`W x + b + (alpha / r) B A x` beside the frozen query and value maps of self-attention, with `A [r, in]`, `B [out, r]`
and dropout on the x of A. Trained with them: the head; LayerNorms stay frozen. B starts at zero, so that the first
output is the pretrained one. The update merges into W.

Parameters: `r (in + out)` a map; `4 r d L` for query and value.

Where paper and official code differ: the paper draws A from a normal distribution, the code (followed here) from the
Kaiming uniform one; Table 9 has alpha 8 for RoBERTa-base, its released scripts 16.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from peft_lightning.backbone import Backbone
from peft_lightning.errors import UserError
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.modules import LowRank


class LoRA(AdaptationMethod):
    """Low-rank updates of linear maps.

    Args:
        rank: Rank r of the update.
        alpha: Numerator of the scale alpha / r.
        dropout: Probability with which an entry of the input is dropped before A.
        targets: Sites of linear maps: query, key, value, attention_dense, ffn_in, ffn_out.
        lr: Peak learning rate; Table 9 has 4e-4 and 5e-4 for RoBERTa-base.
        weight_decay: AdamW's weight decay; Table 9 names none, the released scripts have 0.1.
        warmup: Fraction of all steps in which the learning rate rises from 0 (Table 9).
        kwargs: Arguments of `AdaptationMethod`.
    """

    identity_tolerance = 0.0

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 8.0,
        dropout: float = 0.0,
        targets: Sequence[str] = ("query", "value"),
        lr: float = 5e-4,
        weight_decay: float = 0.0,
        warmup: float = 0.06,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, warmup=warmup, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Puts an update beside each target map."""
        options = self.hparams
        targets = options.targets
        if isinstance(targets, str) or not targets or len(set(targets)) < len(targets):
            raise UserError(
                f"targets is {targets!r}; give a list of linear maps, each once, for example [query,value]."
            )
        for site in backbone.sites(*targets):
            linear = backbone.module_at(site)
            if not isinstance(linear, nn.Linear):
                raise UserError(f"targets holds '{site.name}', which is no linear map; give query, key, value, ...")
            inputs, outputs = linear.in_features, linear.out_features
            backbone.replace(site, LowRank(inputs, outputs, options.rank, options.alpha, options.dropout))
