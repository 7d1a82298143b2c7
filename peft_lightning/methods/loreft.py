"""LoReFT (Wu et al. 2024, arXiv:2404.03592; code: stanfordnlp/pyreft).

Edits the output of every layer at the first token, in a subspace of rank r: `h <- h + R^T (W h + b - R h)`, R `[r, d]`
with orthonormal rows. Trained with it: the head. It acts on positions and cannot be merged.

Parameters: `L (2 r d + r)`, with one layer less in decoders; 18,444 on BERT-base with r = 1.

As in the official code, dropout applies to the whole edited state, not to the edit alone. That code keeps its learned
map in bfloat16 by default; here all of it is float32. Its variant that also edits the last tokens is left out; so, in
decoders, is the last layer, from whose first token nothing reaches the last one, which the head reads. Where a layer
does not end in a norm the edit stands around the layer, and transformers' `output_hidden_states` shows what it edits.
"""

from typing import Any

from peft_lightning.backbone import Backbone
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.modules import LowRankIntervention


class LoReFT(AdaptationMethod):
    """Low-rank edits of hidden states.

    Args:
        rank: Rank r of the edit.
        positions: How many positions are edited, counted from the first; the paper has 1 on GLUE.
        dropout: Probability with which an entry of the edited states is dropped.
        lr: Peak learning rate; the paper has 6e-4 for CoLA.
        weight_decay: AdamW's weight decay.
        warmup: Fraction of all steps in which the learning rate rises from 0.
        kwargs: Arguments of `AdaptationMethod`.
    """

    def __init__(
        self,
        rank: int = 1,
        positions: int = 1,
        dropout: float = 0.05,
        lr: float = 6e-4,
        weight_decay: float = 0.0,
        warmup: float = 0.09,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, warmup=warmup, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Inserts an edit behind each layer whose first tokens the head sees."""
        options = self.hparams
        sites = backbone.sites("layer_output")
        for site in sites[:-1] if backbone.architecture.causal else sites:
            backbone.insert_after(
                site, LowRankIntervention(backbone.width, options.rank, options.positions, options.dropout)
            )
