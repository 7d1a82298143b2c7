"""Prompt tuning (Lester et al. 2021, arXiv:2104.08691).

n trained embeddings P `[n, d]` in front of those of the text: `[P; X]`. Trained with them: the head. The head reads the
true first token, not a virtual one: the virtual positions are cut off what the layers give.

Parameters: `n d`; 15,360 on BERT-base with n = 20.

The paper prompts T5 for text to text, without a head, with Adafactor at a constant 0.3, which is no learning rate for
AdamW; the default here is ours. It samples from the 5,000 most common tokens; vocabularies that are not sorted by
frequency do not tell which these are, and here all but the special ones are meant.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from peft_lightning.backbone import Backbone
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.modules import Prompt
from peft_lightning.modules.prompt_length import check_prompt_length


class PromptTuning(AdaptationMethod):
    """Trained embeddings in front of the text.

    Args:
        prompt_length: Number n of virtual tokens; the paper has {1, 5, 20, 100, 150} and recommends 100.
        init: Where they start: `labels` at the mean embeddings of the label names, and random words after them;
            `vocabulary` at random words; `uniform` between -0.5 and 0.5.
        lr: Peak learning rate.
        weight_decay: AdamW's weight decay.
        warmup: Fraction of all steps in which the learning rate rises from 0.
        kwargs: Arguments of `AdaptationMethod`.
    """

    def __init__(
        self,
        prompt_length: int = 100,
        init: Literal["labels", "vocabulary", "uniform"] = "labels",
        lr: float = 1e-2,
        weight_decay: float = 0.0,
        warmup: float = 0.06,
        **kwargs: Any,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, warmup=warmup, **kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Puts the prompt into the sequence."""
        check_prompt_length(self.hparams.prompt_length)
        backbone.prompt(Prompt(self._start(backbone)))

    @property
    def virtual_tokens(self) -> int:
        """The positions that the prompt takes."""
        return self.hparams.prompt_length

    def _start(self, backbone: Backbone) -> Tensor:
        table = backbone.word_embeddings.detach()
        length = self.hparams.prompt_length
        if self.hparams.init == "uniform":
            return torch.rand(length, table.shape[1]) - 0.5
        tokenizer = backbone.tokenizer
        words = torch.tensor(sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)))
        rows = table[words[torch.randint(len(words), (length,))]]
        if self.hparams.init == "labels":
            for number, label in enumerate(self.task.label_names[:length]):
                tokens = tokenizer(label.replace("_", " "), add_special_tokens=False)["input_ids"]
                rows[number] = table[tokens].mean(0) if tokens else rows[number]
        return rows
