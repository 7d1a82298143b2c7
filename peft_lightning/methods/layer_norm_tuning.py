"""LayerNorm tuning: only the scales and shifts of the LayerNorms (Houlsby et al. 2019, section 3.4).

`y = gamma (x - mean) / std + beta`, with gamma and beta trained in every LayerNorm, the embeddings' included. Nothing
is inserted; normalisations without beta (RMSNorm) train gamma alone.

Parameters: `(2 L + 1) 2 d`; the paper rounds 38,400 to 40 thousand for BERT-base.
"""

from typing import Any

from peft_lightning.backbone import Backbone
from peft_lightning.errors import UserError
from peft_lightning.methods.base import AdaptationMethod


class LayerNormTuning(AdaptationMethod):
    """Trains the LayerNorms.

    Args:
        embedding_norm: Whether the LayerNorms outside the layers are trained too.
        weights: Whether the scales gamma are trained.
        biases: Whether the shifts beta are trained.
        lr: Peak learning rate.
        kwargs: Arguments of `AdaptationMethod`.
    """

    def __init__(
        self,
        embedding_norm: bool = True,
        weights: bool = True,
        biases: bool = True,
        lr: float = 1e-3,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Unfreezes the LayerNorms."""
        options = self.hparams
        norms = backbone.layer_norms if options.embedding_norm else backbone.layer_norms_of(backbone.layers)
        wanted = [name for name, chosen in (("weight", options.weights), ("bias", options.biases)) if chosen]
        parts = [getattr(norm, name) for norm in norms for name in wanted if getattr(norm, name, None) is not None]
        if not parts:
            kind = backbone.model.config.model_type
            raise UserError(
                f"weights is {options.weights} and biases is {options.biases}, which leaves nothing to train in the "
                f"normalisations of a {kind} model; give --model.weights true."
            )
        backbone.unfreeze(*parts)
