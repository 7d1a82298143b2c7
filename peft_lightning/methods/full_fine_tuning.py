"""Full fine-tuning: every weight of the backbone and the head (Devlin et al. 2019, section 3.2).

Nothing is inserted: disabled means the pretrained values, and `merge` gives a copy of the fine-tuned model.
"""

from typing import Any

from peft_lightning.backbone import Backbone
from peft_lightning.methods.base import AdaptationMethod


class FullFineTuning(AdaptationMethod):
    """Trains all parameters: embeddings, LayerNorms, layers and head.

    Args:
        lr: Peak learning rate; Devlin et al. search {2e-5, 3e-5, 5e-5}.
        kwargs: Arguments of `AdaptationMethod`.
    """

    def __init__(self, lr: float = 3e-5, **kwargs: Any):
        super().__init__(lr=lr, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Unfreezes the whole backbone."""
        backbone.unfreeze(backbone.model)
