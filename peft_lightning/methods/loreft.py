"""LoReFT (Wu et al. 2024, arXiv:2404.03592; code: stanfordnlp/pyreft).

Edits the output of every layer at the first tokens, and at the last ones if that is wanted, in a subspace of rank r:
`h <- h + R^T (W h + b - R h)`, R `[r, d]` with orthonormal rows, another edit for first and for last tokens. Trained
with it: the head. It acts on positions and cannot be merged.

Parameters: `L (2 r d + r)` for first and again for last tokens; 18,444 on BERT-base with r = 1 at the first. In
decoders first tokens are not edited behind the last layer, where nothing reaches the last token, which the head reads;
in encoders last tokens are, as in the official code, though a head that reads only the first one trains nothing there.

As in the official code, dropout applies to the whole edited state, not to the edit alone. That code keeps its learned
map in bfloat16 by default; here all of it is float32. Its option to share one edit between first and last tokens is
left out. An encoder-decoder that writes texts is edited in its encoder only. Where a layer does not end in a norm the
edit stands around the layer, and transformers' `output_hidden_states` shows what it edits.
"""

from typing import Any, Literal

from peft_lightning.backbone import Backbone, Site
from peft_lightning.errors import UserError
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.modules import LowRankIntervention, TextEnds


class LoReFT(AdaptationMethod):
    """Low-rank edits of hidden states.

    Args:
        rank: Rank r of the edit.
        positions: How many tokens are edited, counted from the first; the paper has 1 on GLUE.
        last_positions: How many are edited counted from the last; the paper has as many as first ones in decoders.
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
        last_positions: int = 0,
        dropout: float = 0.05,
        lr: float = 6e-4,
        weight_decay: float = 0.0,
        warmup: float = 0.09,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, warmup=warmup, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Inserts an edit, or two, behind each layer whose edited tokens the head sees."""
        options = self.hparams
        if options.positions < 0 or options.last_positions < 0 or not options.positions + options.last_positions:
            raise UserError(
                f"positions is {options.positions} and last_positions is {options.last_positions}; give numbers of "
                "tokens of at least 0, and one of at least 1."
            )
        if options.last_positions and backbone.architecture.output is None:
            raise UserError(
                f"last_positions is {options.last_positions}, and the decoder of a {backbone.model.config.model_type} "
                "model does not know beforehand which of its tokens are the last; give --model.last_positions 0."
            )
        ends = backbone.text_ends() if options.last_positions else None
        # What a decoder writes comes token by token, so that an edit would take each for the first: as in the paper,
        # only the given text is edited.
        given = [layer for layer in backbone.layers if not (self.task.pretrained_head and "cross_query" in layer.sites)]
        for site in (layer.sites["layer_output"] for layer in given):
            if options.positions and not (backbone.architecture.causal and site.layer == len(backbone.layers) - 1):
                self._edit(backbone, site, options.positions, "first", ends)
            if options.last_positions:
                self._edit(backbone, site, options.last_positions, "last", ends)

    def _edit(
        self, backbone: Backbone, site: Site, positions: int, side: Literal["first", "last"], ends: TextEnds | None
    ) -> None:
        options = self.hparams
        edit = LowRankIntervention(backbone.width, options.rank, positions, options.dropout, side, ends)
        backbone.insert_after(site, edit)
