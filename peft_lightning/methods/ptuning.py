"""P-Tuning, version 1 (Liu et al. 2021, arXiv:2103.10385; code: THUDM/P-tuning).

Trained embeddings in the input, computed by a network from embeddings E `[n, d]`: `P = MLP(BiLSTM(E))`, or `MLP(E)`.
Checkpoints keep the network, so that training can go on, and `save_adapter` writes only P. Trained with it: the head,
which reads the true first token.

Parameters in training, with h hidden units: `n d + h (d + 1) + h (h + 1) + d (h + 1)` for the MLP; n d afterwards.

The paper fills a cloze with a masked language model; here the task is the benchmark's own and the head a classifier.
The official LAMA code has two LSTM layers with d / 2 units each way and E from N(0, 1), as the default here; for
SuperGLUE it trains the language model too: `backbone_lr`. The template of LAMA, (3, 3, 3), is `P P P [MASK] P P P x P P
P`; here the token that an encoder's head reads, the first, takes the place of the mask, and the last virtual tokens
stand in front of the last token, which a decoder's head reads.
"""

from typing import Any, Literal

from torch import nn

from peft_lightning.backbone import Backbone
from peft_lightning.errors import UserError
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.modules import EncodedPrompt, Prompt
from peft_lightning.modules.prompt import PromptEncoder
from peft_lightning.modules.prompt_length import check_prompt_length


class PTuning(AdaptationMethod):
    """A prompt that a network computes while it is trained.

    Args:
        prompt_length: Number n of virtual tokens.
        encoder: The network: `lstm` with an MLP behind it, `mlp`, or `none` for a prompt that is trained directly.
        hidden: Its size; by default half the hidden size each way for the LSTM, the hidden size for the MLP.
        template: How many of the virtual tokens stand in front of the first token, behind it, and in front of the last
            one, with n as their sum; by default all are in front.
        backbone_lr: Learning rate of the backbone, which is frozen by default.
        lr: Peak learning rate; the official few-shot script has 1e-4, and 1e-5 for the backbone.
        weight_decay: AdamW's weight decay.
        warmup: Fraction of all steps in which the learning rate rises from 0.
        kwargs: Arguments of `AdaptationMethod`.
    """

    exported_options = {"encoder": "none"}

    def __init__(
        self,
        prompt_length: int = 20,
        encoder: Literal["lstm", "mlp", "none"] = "lstm",
        hidden: int | None = None,
        template: list[int] | None = None,
        backbone_lr: float | None = None,
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        warmup: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, warmup=warmup, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Puts the prompt into the sequence, and unfreezes the backbone if that is wanted."""
        options = self.hparams
        if options.backbone_lr is not None and options.backbone_lr <= 0:
            raise UserError(f"backbone_lr is {options.backbone_lr}; give a learning rate above 0, or null.")
        check_prompt_length(options.prompt_length)
        width = backbone.word_embeddings.shape[1]
        if options.encoder == "none":
            start = nn.init.normal_(backbone.word_embeddings.new_empty(options.prompt_length, width))
            backbone.prompt(Prompt(start, options.template))
        else:
            encoder: PromptEncoder = options.encoder
            hidden = (width // 2 if encoder == "lstm" else width) if options.hidden is None else options.hidden
            backbone.prompt(EncodedPrompt(options.prompt_length, width, encoder, hidden, options.template))
        if options.backbone_lr is not None:
            backbone.unfreeze(backbone.model)

    @property
    def virtual_tokens(self) -> int:
        """The positions that the prompt takes."""
        return self.hparams.prompt_length

    def learning_rate_ratios(self) -> dict[nn.Parameter, float]:
        """The backbone has a learning rate of its own."""
        if self.hparams.backbone_lr is None:
            return {}
        return dict.fromkeys(self.backbone.pretrained.values(), self.hparams.backbone_lr / self.hparams.lr)
