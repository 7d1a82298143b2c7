"""BitFit: only the biases (Ben Zaken et al. 2021, arXiv:2106.10199; code: benzakenelad/BitFit).

Every parameter of the backbone that is called bias is trained: of query, key, value and output of attention, of the
feed-forward maps, of all LayerNorms, and of the pooler. Nothing is inserted.

Parameters: `11 d L + 2 d` on BERT, `11 d L + d` on RoBERTa, which has no pooler; query and ffn_in alone `5 d L`.

The official code trains for 16 epochs with batch 8 and a constant learning rate of 1e-3, without weight decay on
biases, which is what the defaults are here.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from peft_lightning.backbone import Backbone
from peft_lightning.errors import UserError
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.methods.optimization import Schedule


class BitFit(AdaptationMethod):
    """Trains the biases.

    Args:
        targets: Sites whose biases are trained; by default those of the whole backbone. The paper's smaller variant is
            [query, ffn_in].
        lr: Peak learning rate; the official code has 1e-3.
        weight_decay: AdamW's weight decay, of the head's weights alone.
        warmup: Fraction of all steps in which the learning rate rises from 0; the official code has none.
        schedule: After the warm-up; the official code stays constant.
        kwargs: Arguments of `AdaptationMethod`.
    """

    def __init__(
        self,
        targets: Sequence[str] | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        warmup: float = 0.0,
        schedule: Schedule = "constant",
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, warmup=warmup, schedule=schedule, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Unfreezes the biases."""
        targets = self.hparams.targets
        kind = backbone.model.config.model_type
        if targets is None:
            modules: list[nn.Module] = list(backbone.model.base_model.modules())
        elif isinstance(targets, str) or not targets:
            raise UserError(f"targets is {targets!r}; give a list of sites, for example [query,ffn_in].")
        else:
            modules = [backbone.module_at(site) for site in backbone.sites(*targets)]
        found = [getattr(module, "bias", None) for module in modules]
        biases = [bias for bias in found if isinstance(bias, nn.Parameter)]
        if not biases:
            where = f"at {', '.join(targets)}" if targets else "at all"
            raise UserError(f"A {kind} model has no biases {where}, so that BitFit has nothing to train; choose LoRA.")
        backbone.unfreeze(*biases)
