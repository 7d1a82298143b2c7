"""P-Tuning v2 (Liu et al. 2022, arXiv:2110.07602; code: THUDM/P-tuning-v2).

Trained keys and values `P_k, P_v [n, d]` in front of those of the text, in every layer: `K' = [P_k; K]`,
`V' = [P_v; V]`, with dropout on them. Trained with them: the head. Tokens of the text are at the positions n, n + 1,
..., as if the prefix stood in the sequence. With `projection` the prefix comes from a network while it is trained, as
in `PrefixTuning`; it helps on some tasks (RTE) and harms on others (BoolQ). With an input prompt, m trained embeddings
also stand in front of the text, as in `PromptTuning`, behind the prefix; the official code has them as alternatives.

Parameters: `2 n d L`, and `m d` of an input prompt; with projection `n d + k (d + 1) + 2 L d (k + 1)` in training.

Where this differs from the official code: it initialises with N(0, 1), which its own loading then overwrites with
N(0, 0.02), the default here; its dropout is the backbone's `hidden_dropout_prob`, which is 0.1 for BERT and RoBERTa, as
here; on RoBERTa it classifies with a linear map of the (frozen) pooler, where this trains the model's own head.
"""

from typing import Any

from torch import nn

from peft_lightning.backbone import Backbone
from peft_lightning.errors import UserError
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.methods.prefixes import insert_prefixes
from peft_lightning.modules import Prompt, ShiftedPositions


class PTuningV2(AdaptationMethod):
    """Deep prompts: a trained prefix in the attention of every layer.

    Args:
        prompt_length: Number n of virtual tokens; under 20 for simple classification, about 100 for hard sequence
            labelling.
        dropout: Probability with which an entry of the prefix is dropped in training.
        init_std: Standard deviation of the initial prefix and input prompt.
        shift_positions: Whether the text is moved n positions on, as in the official code; only where the backbone has
            a table of positions, unlike LLaMA and T5.
        projection: Whether the prefix comes from a network.
        projection_size: Size k of its hidden layer.
        input_prompt_length: Number m of trained embeddings in front of the text; 0 means none.
        lr: Peak learning rate; the official scripts use 5e-3 to 6e-2.
        weight_decay: AdamW's weight decay; the official scripts leave it at 0.
        warmup: Fraction of all steps in which the learning rate rises from 0; the official scripts have none.
        kwargs: Arguments of `AdaptationMethod`.
    """

    exported_options = {"projection": False}

    def __init__(
        self,
        prompt_length: int = 20,
        dropout: float = 0.1,
        init_std: float = 0.02,
        shift_positions: bool = True,
        projection: bool = False,
        projection_size: int = 512,
        input_prompt_length: int = 0,
        lr: float = 7e-3,
        weight_decay: float = 0.0,
        warmup: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, warmup=warmup, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Gives every attention a prefix and moves the text behind it."""
        options = self.hparams
        tables = backbone.position_sites if options.shift_positions else []
        if options.shift_positions and not tables and not backbone.architecture.prefix_obstacle:
            raise UserError(
                f"shift_positions is true, and a {backbone.model.config.model_type} model has no table of positions to "
                "shift in, only distances between tokens, which stay the same; give --model.shift_positions false."
            )
        size = options.projection_size if options.projection else None
        insert_prefixes(backbone, options.prompt_length, size, options.init_std, options.dropout)
        for table in tables:
            backbone.replace(table, ShiftedPositions(options.prompt_length))
        if options.input_prompt_length < 0:
            raise UserError(f"input_prompt_length is {options.input_prompt_length}; give at least 0, which means none.")
        if options.input_prompt_length:
            start = backbone.word_embeddings.new_empty(options.input_prompt_length, backbone.word_embeddings.shape[1])
            backbone.prompt(Prompt(nn.init.normal_(start, std=options.init_std)))

    @property
    def virtual_tokens(self) -> int:
        """The positions that the shift and the input prompt take."""
        shift = self.hparams.prompt_length if self.hparams.shift_positions else 0
        return shift + self.hparams.input_prompt_length
