"""Houlsby adapters (Houlsby et al. 2019, arXiv:1902.00751; code: google-research/adapter-bert).

Two bottlenecks a layer, `h + W_up f(W_down h + b_down) + b_up`, one after the attention sub-layer and one after the
feed-forward sub-layer, each before the residual is added and the LayerNorm applied (section 2.1). Trained with them:
every LayerNorm of the backbone, that of the embeddings included, and the head; a pretrained pooler stays frozen.

Parameters: `2 L (2 m d + m + d)`, and `(2 L + 1) 2 d` for the LayerNorms.

Where paper and official code differ: the paper draws the weights with standard deviation 1e-2, the code with 1e-3; the
paper does not name the activation, the code uses the tanh approximation of GELU where `gelu` here is exact
(`gelu_new` is the approximation); the code's Adam lacks the bias correction and has eps 1e-6; its head starts from a
truncated normal with standard deviation 0.02, transformers' from a normal. Defaults follow the paper.
"""

from typing import Any

from peft_lightning.backbone import Backbone
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.modules import Bottleneck


class Houlsby(AdaptationMethod):
    """Bottleneck adapters after both sub-layers of every layer.

    Args:
        bottleneck: Size m of the bottleneck; the paper uses 8, 64 and 256 on GLUE.
        activation: Non-linearity f: gelu, gelu_new, tanh, relu, silu, ...
        init_std: Standard deviation of the initial weights, a normal truncated at two deviations; robust up to 1e-2
            (section 3.6).
        train_layer_norm: Whether the LayerNorms of the backbone are trained too.
        lr: Peak learning rate; the paper searches {3e-5, 3e-4, 3e-3} on GLUE.
        kwargs: Arguments of `AdaptationMethod`.
    """

    identity_tolerance = 2e-3

    def __init__(
        self,
        bottleneck: int = 64,
        activation: str = "gelu",
        init_std: float = 1e-2,
        train_layer_norm: bool = True,
        lr: float = 3e-4,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Inserts the adapters and unfreezes the LayerNorms."""
        options = self.hparams
        for site in backbone.sites("attention_output", "ffn_output"):
            adapter = Bottleneck(backbone.width, options.bottleneck, options.activation, options.init_std)
            backbone.insert_after(site, adapter)
        if options.train_layer_norm:
            backbone.unfreeze(*backbone.layer_norms, role="layer_norm")
