"""Linear probe: the backbone as it is, and a trained head.

The head is the model's own. On BERT that is one linear map of the pooled output, `W g(x_L) + b` with `d C + C`
parameters, on GPT-2, OPT and LLaMA one of the last token's state, without b. RoBERTa, XLM-R, ELECTRA, DistilBERT,
DeBERTa-v2, BART, mBART and T5 have a hidden layer in it, so that on them this trains a small network rather than a
linear map. Dropout of the frozen backbone is on in training, as for every method.
"""

from typing import Any

from peft_lightning.backbone import Backbone
from peft_lightning.methods.base import AdaptationMethod


class LinearProbe(AdaptationMethod):
    """Trains the head alone.

    Args:
        lr: Peak learning rate.
        weight_decay: AdamW's weight decay.
        kwargs: Arguments of `AdaptationMethod`.
    """

    identity_tolerance = 0.0

    def __init__(self, lr: float = 1e-2, weight_decay: float = 0.0, **kwargs: Any):
        super().__init__(lr=lr, weight_decay=weight_decay, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Leaves the backbone as it is."""
