"""Prefix-tuning (Li and Liang 2021, arXiv:2101.00190; code: XiangLi1999/PrefixTuning).

Trained keys and values `P_k, P_v [n, d]` in front of those of the text, in every attention: `K' = [P_k; K]`,
`V' = [P_v; V]`. In training they come from a network, `P = W_2 tanh(W_1 E + b_1) + b_2` with `E [n, d]`; checkpoints
keep it, so that training can go on, and `save_adapter` writes only P. Trained with them: the head.

Parameters: `n d + k (d + 1) + 2 L d (k + 1)` in training, `2 n d L` afterwards and without projection.

The positions of the text stay what they are, which is what the attention computes in the form of He et al. 2022;
`PTuningV2` shifts them. The paper trains without head, for generation; its k is 512 for tables and 800 for summaries.
"""

from typing import Any

from peft_lightning.backbone import Backbone
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.methods.prefixes import insert_prefixes


class PrefixTuning(AdaptationMethod):
    """A trained prefix in every attention, computed by a network while it is trained.

    Args:
        prompt_length: Number n of virtual tokens; the paper has 10 for tables and 200 for summaries.
        projection: Whether the network is there; training P directly is less stable (section 4.3).
        projection_size: Size k of its hidden layer.
        dropout: Probability with which an entry of the prefix is dropped in training.
        init_std: Standard deviation of P at the start, without the network.
        lr: Peak learning rate; the paper has 5e-5 and 8e-5.
        weight_decay: AdamW's weight decay.
        warmup: Fraction of all steps in which the learning rate rises from 0.
        kwargs: Arguments of `AdaptationMethod`.
    """

    exported_options = {"projection": False}

    def __init__(
        self,
        prompt_length: int = 10,
        projection: bool = True,
        projection_size: int = 512,
        dropout: float = 0.0,
        init_std: float = 0.02,
        lr: float = 5e-5,
        weight_decay: float = 0.0,
        warmup: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, warmup=warmup, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Gives every attention a prefix."""
        options = self.hparams
        size = options.projection_size if options.projection else None
        insert_prefixes(backbone, options.prompt_length, size, options.init_std, options.dropout)
