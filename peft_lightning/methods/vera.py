"""VeRA (Kopiczko et al. 2023, arXiv:2310.11454).

`W x + b + v_b * (B (v_d * (A x)))` beside the frozen query and value maps. A `[r, in]` and B `[out, r]` are random,
frozen and shared by all layers; the vectors `v_d [r]` and `v_b [out]` are trained, and the head. The update merges.

Parameters: `2 L (d + r)` for query and value. The published 43 thousand on RoBERTa-base fit r = 1024, the 61 thousand
on RoBERTa-large r = 256.

A and B are in no file: they follow from `projection_seed`, on every machine and in every version.
"""

from collections.abc import Sequence
from typing import Any

from peft_lightning.backbone import Backbone
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.methods.targets import linear_targets
from peft_lightning.modules import SharedProjection, VectorLowRank


class VeRA(AdaptationMethod):
    """Low-rank updates of which only two vectors a map are trained.

    Args:
        rank: Rank r of the shared projection.
        d_init: Where the entries of `v_d` start.
        targets: Sites of linear maps.
        projection_seed: Seed of A and B.
        lr: Peak learning rate of vectors and head.
        weight_decay: AdamW's weight decay.
        warmup: Fraction of all steps in which the learning rate rises from 0.
        kwargs: Arguments of `AdaptationMethod`.
    """

    identity_tolerance = 0.0

    def __init__(
        self,
        rank: int = 256,
        d_init: float = 0.1,
        targets: Sequence[str] = ("query", "value"),
        projection_seed: int = 0,
        lr: float = 4e-3,
        weight_decay: float = 0.0,
        warmup: float = 0.06,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, warmup=warmup, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Puts an update beside each target map; maps of one shape share their projection."""
        options = self.hparams
        shared: dict[tuple[int, int], SharedProjection] = {}
        for site, linear in linear_targets(backbone, options.targets):
            shape = (linear.in_features, linear.out_features)
            if shape not in shared:
                shared[shape] = SharedProjection(*shape, options.rank, options.projection_seed)
            backbone.replace(site, VectorLowRank(shared[shape], options.d_init))
