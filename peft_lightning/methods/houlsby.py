"""Houlsby adapters (Houlsby et al. 2019, arXiv:1902.00751; code: google-research/adapter-bert).

Two bottlenecks a layer, `h + W_up f(W_down h + b_down) + b_up`, one after the attention sub-layer and one after the
feed-forward sub-layer, each before the residual is added and the LayerNorm applied (section 2.1). Trained with them:
every LayerNorm of the backbone, that of the embeddings included, and the head; a pretrained pooler stays frozen. Where
norms stand before the sub-layers, the adapters are still behind these and before the residual is added.

Parameters: `2 L (2 m d + m + d)`, and `(2 L + 1) 2 d` for the LayerNorms.

The variations that the paper tried (section 3.6) are options: `norm` and `depth` inside the adapter, the activation,
`placement` in one sub-layer only, and `form`, with adapters beside the sub-layers, added or multiplied. The paper
prints no numbers for them and leaves open where the normalisation stands (here: on what enters the adapter) and how
the multiplication is written (here: `f (1 + A(x))`).

Where paper and official code differ: the paper draws the weights with standard deviation 1e-2, the code with 1e-3; the
paper does not name the activation, the code uses the tanh approximation of GELU where `gelu` here is exact
(`gelu_new` is the approximation); the code's Adam lacks the bias correction and has eps 1e-6; its head starts from a
truncated normal with standard deviation 0.02, transformers' from a normal. Defaults follow the paper.
"""

from collections.abc import Sequence
from typing import Any, Literal

from peft_lightning.backbone import Backbone
from peft_lightning.methods.adapter_drop import AdapterMethod
from peft_lightning.methods.adapter_options import sub_layer_outputs
from peft_lightning.modules import Bottleneck, ParallelBottleneck
from peft_lightning.modules.bottleneck import Norm


class Houlsby(AdapterMethod):
    """Bottleneck adapters after both sub-layers of every layer.

    Args:
        bottleneck: Size m of the bottleneck; the paper uses 8, 64 and 256 on GLUE.
        activation: Non-linearity f: gelu, gelu_new, tanh, relu, silu, ...
        init_std: Standard deviation of the initial weights, a normal truncated at two deviations; robust up to 1e-2
            (section 3.6).
        train_layer_norm: Whether the LayerNorms of the backbone are trained too; where lower layers have no adapters,
            those of the others.
        placement: Which sub-layers have adapters: attention, ffn, or both; cross_attention too, in a decoder.
        form: `serial` after the sub-layer; `parallel` beside it and added; `multiplicative` beside it and multiplied.
        depth: Number of layers inside the adapter.
        norm: Normalisation inside the adapter: none, layer or batch.
        lr: Peak learning rate; the paper searches {3e-5, 3e-4, 3e-3} on GLUE.
        kwargs: Arguments of `AdapterMethod`.
    """

    identity_tolerance = 2e-3

    def __init__(
        self,
        bottleneck: int = 64,
        activation: str = "gelu",
        init_std: float = 1e-2,
        train_layer_norm: bool = True,
        placement: Sequence[str] = ("attention", "ffn"),
        form: Literal["serial", "parallel", "multiplicative"] = "serial",
        depth: int = 1,
        norm: Norm = "none",
        lr: float = 3e-4,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Inserts the adapters and unfreezes the LayerNorms."""
        options = self.hparams
        for site in self.adapter_sites(backbone, *sub_layer_outputs(options.placement)):
            adapter = Bottleneck(
                backbone.width,
                options.bottleneck,
                options.activation,
                options.init_std,
                depth=options.depth,
                norm=options.norm,
            )
            if options.form == "serial":
                backbone.insert_after(site, adapter)
            else:
                multiplicative = options.form == "multiplicative"
                backbone.insert_beside(site, ParallelBottleneck(adapter, multiplicative=multiplicative))
        if options.train_layer_norm:
            self.train_layer_norms(backbone)
