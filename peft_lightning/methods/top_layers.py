"""Top-k layers: "variable fine-tuning" (Houlsby et al. 2019, arXiv:1902.00751, section 3.1).

The k layers nearest to the output are trained with the head, and everything below them is frozen. Nothing is inserted.

Parameters: `k (12 d^2 + 13 d)` where the feed-forward sub-layer is 4 d wide, and `d^2 + d` for the pooler.

The paper does not say whether the pooler, which lies above the layers, is trained: here it is. With k = L and
`train_embeddings` this is full fine-tuning. The paper counts about 9 million parameters for k = 1 on BERT-base, where
one layer, the pooler and the head are 7.68 million; what else it counts it does not say.
"""

from typing import Any

from peft_lightning.backbone import Backbone
from peft_lightning.errors import UserError
from peft_lightning.methods.base import AdaptationMethod


class TopLayers(AdaptationMethod):
    """Fine-tunes the top k layers.

    Args:
        k: Number of layers, counted from the output; the paper uses 1, 2, 3, 5, 7, 9, 11 and 12 of 12.
        train_pooler: Whether a pretrained pooler above the layers is trained too.
        train_embeddings: Whether the embeddings below the layers are trained too.
        lr: Peak learning rate; the paper searches {1e-5, 3e-5, 1e-4, 3e-3}.
        kwargs: Arguments of `AdaptationMethod`.
    """

    def __init__(
        self, k: int = 1, train_pooler: bool = True, train_embeddings: bool = False, lr: float = 3e-5, **kwargs: Any
    ):
        super().__init__(lr=lr, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Unfreezes the layers."""
        options = self.hparams
        count = len(backbone.layers)
        if not 1 <= options.k <= count:
            raise UserError(f"k is {options.k}; this backbone has {count} layers: give a number from 1 to {count}.")
        backbone.unfreeze(*(backbone.layer_module(layer) for layer in backbone.layers[-options.k :]))
        if options.train_pooler:
            backbone.unfreeze(*backbone.above_layers)
        if options.train_embeddings:
            backbone.unfreeze(*backbone.below_layers)
