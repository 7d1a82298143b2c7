"""BitFit: only the biases (Ben Zaken et al. 2021, arXiv:2106.10199; code: benzakenelad/BitFit).

Every parameter of the backbone that is called bias is trained: of query, key, value and output of attention, of the
feed-forward maps, of all LayerNorms, and of the pooler. Nothing is inserted.

LLaMA and T5 have no biases. GPT-2 keeps those of query, key and value in one tensor, trained as a whole or not at all.

Parameters: `11 d L + 2 d` on BERT, `11 d L + d` on RoBERTa, which has no pooler; query and ffn_in alone `5 d L`.

The official code trains for 16 epochs with batch 8 and a constant learning rate of 1e-3, without weight decay on
biases, which is what the defaults are here.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from peft_lightning.backbone import Backbone, Site
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
            modules = [backbone.module_at(site) for site in _whole(backbone.sites(*targets), kind)]
        found = (getattr(module, "bias", None) for module in modules)
        biases = [bias for bias in found if isinstance(bias, nn.Parameter)]
        if not biases:
            where = f"at {', '.join(targets)}" if targets else "at all"
            raise UserError(f"A {kind} model has no biases {where}, so that BitFit has nothing to train; choose LoRA.")
        backbone.unfreeze(*biases)


def _whole(sites: list[Site], kind: str) -> list[Site]:
    """The sites, if no bias of theirs is a part of a longer one that is not meant as a whole.

    Raises:
        UserError: One is.
    """
    wanted = {(site.path, site.part.index) for site in sites if site.part}
    for site in sites:
        if site.part and any((site.path, index) not in wanted for index in range(site.part.count)):
            raise UserError(
                f"targets holds '{site.name}', whose bias in a {kind} model is one of {site.part.count} parts of "
                f"that of {site.part.path} and cannot be trained alone; give all of them, or leave targets out."
            )
    return sites
