"""LoRA (Hu et al. 2021, arXiv:2106.09685; code: microsoft/LoRA), and four refinements as options.

`W x + b + s B A x` beside the frozen query and value maps of self-attention, with `A [r, in]`, `B [out, r]`,
`s = alpha / r`, and dropout on the x of A. Trained with them: the head; LayerNorms stay frozen. The first output is the
pretrained one. The update merges into W.

- rsLoRA (arXiv:2312.03732), `rank_stabilized`: `s = alpha / sqrt(r)`.
- DoRA (arXiv:2402.09353), `dora`: `m (W + s B A) / ||W + s B A||` with a trained magnitude m `[out]`.
- PiSSA (arXiv:2404.02948), `init: pissa`: B and A start as the principal part of W, which is taken out of W.
- LoRA+ (arXiv:2402.12354), `lr_ratio`: B learns so many times faster than A; the paper has about 16.

Parameters: `r (in + out)` a map; `4 r d L` for query and value; DoRA adds `out` a map.

Where paper and official code differ: the paper draws A from a normal distribution, the code (followed here) from the
Kaiming uniform one; Table 9 has alpha 8 for RoBERTa-base, its released scripts 16.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from peft_lightning.backbone import Backbone, LinearMap
from peft_lightning.errors import UserError
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.methods.targets import linear_targets
from peft_lightning.modules import LowRank, PrincipalLowRank, WeightDecomposedLowRank
from peft_lightning.modules.low_rank import LowRankInit, LowRankPair


class LoRA(AdaptationMethod):
    """Low-rank updates of linear maps.

    Args:
        rank: Rank r of the update.
        alpha: Numerator of the scale s.
        dropout: Probability with which an entry of the input is dropped before A.
        targets: Sites of linear maps: query, key, value, attention_dense, ffn_in, ffn_out.
        rank_stabilized: Whether s is alpha / sqrt(r) instead of alpha / r.
        dora: Whether magnitude and direction of the weights are trained apart.
        init: Where A starts: `kaiming`, `gaussian`, or `pissa` for both matrices.
        lr_ratio: Learning rate of B divided by that of A, which is `lr`.
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
        rank_stabilized: bool = False,
        dora: bool = False,
        init: LowRankInit = "kaiming",
        lr_ratio: float = 1.0,
        lr: float = 5e-4,
        weight_decay: float = 0.0,
        warmup: float = 0.06,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, warmup=warmup, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Puts an update beside each target map."""
        options = self.hparams
        if options.dora and options.init == "pissa":
            raise UserError("dora is true and init is pissa, which both redefine where the weights start; choose one.")
        if options.lr_ratio <= 0:
            raise UserError(f"lr_ratio is {options.lr_ratio}; give a number above 0.")
        for site, linear in linear_targets(backbone, options.targets):
            backbone.replace(site, self._update(linear))

    def _update(self, linear: LinearMap) -> nn.Module:
        options = self.hparams
        sizes = {"rank": options.rank, "alpha": options.alpha, "dropout": options.dropout}
        sizes["rank_stabilized"] = options.rank_stabilized
        if options.init == "pissa":
            return PrincipalLowRank(linear.weight, **sizes)
        if options.dora:
            return WeightDecomposedLowRank(linear.weight, init=options.init, **sizes)
        return LowRank(linear.in_features, linear.out_features, init=options.init, **sizes)

    def learning_rate_ratios(self) -> dict[nn.Parameter, float]:
        """LoRA+: B learns `lr_ratio` times as fast."""
        updates = [insertion.module for insertion in self.backbone.insertions]
        return {update.B: self.hparams.lr_ratio for update in updates if isinstance(update, LowRankPair)}
