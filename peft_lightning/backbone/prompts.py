"""Room for virtual tokens: the sequence is longer inside the model, and as long as the text outside it.

Three pieces that know of each other: `Lengthen` adds ids, mask and segment ids before the base model; the method's
module at the word embeddings puts the trained embeddings there; `Shorten` cuts the virtual positions off what the
layers give, before any pooler or head. So the head reads a true token, and labels of positions stay right.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from peft_lightning.backbone.slots import Slot
from peft_lightning.modules.prompt import InputPrompt


def make_room(base: PreTrainedModel, output: str, slot: Slot, prompt: InputPrompt) -> list[RemovableHandle]:
    """Hooks that lengthen what enters the base model and shorten what leaves its layers.

    Args:
        base: The base model.
        output: Path, from there, of the module that gives the last hidden states.
        slot: What stands at the word embeddings; the hooks act while it is switched on.
        prompt: The method's module in it.

    Returns:
        The handles to remove the hooks with.
    """
    special = (base.config.pad_token_id, base.config.eos_token_id, base.config.bos_token_id)
    virtual = next(token for token in range(4) if token not in special)
    return [
        base.register_forward_pre_hook(Lengthen(slot, prompt.length, prompt.offset, virtual), with_kwargs=True),
        base.get_submodule(output).register_forward_hook(Shorten(slot, prompt.length, prompt.offset)),
    ]


class Lengthen:
    """A pre-hook of the base model that adds virtual tokens to its inputs while a slot is switched on.

    Args:
        slot: What stands at the word embeddings.
        length: Number n of virtual tokens.
        offset: Number of real tokens in front of them.
        token: The id they get; not that of padding, for the mask and RoBERTa's positions are read from it.
    """

    def __init__(self, slot: Slot, length: int, offset: int, token: int):
        self.slot = slot
        self.length = length
        self.offset = offset
        self.token = token

    def __call__(self, model: nn.Module, args: tuple, inputs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """The inputs with `n + length` positions."""
        if not self.slot.enabled:
            return args, inputs
        ids = args[0] if args else inputs["input_ids"]
        mask = inputs.get("attention_mask")
        lengthened = inputs | {
            "input_ids": self._lengthen(ids, self.token),
            "attention_mask": self._lengthen(torch.ones_like(ids) if mask is None else mask, 1),
        }
        if inputs.get("token_type_ids") is not None:
            lengthened["token_type_ids"] = self._lengthen(inputs["token_type_ids"], 0)
        return args[1:], lengthened

    def _lengthen(self, tokens: Tensor, value: int) -> Tensor:
        before, after = tokens[:, : self.offset], tokens[:, self.offset :]
        return torch.cat([before, F.pad(after, (self.length, 0), value=value)], dim=1)


class Shorten:
    """A hook that cuts the virtual positions off hidden states, while a slot is switched on.

    Args:
        slot: What stands at the word embeddings.
        length: Number n of virtual tokens.
        offset: Number of real tokens in front of them.
    """

    def __init__(self, slot: Slot, length: int, offset: int):
        self.slot = slot
        self.length = length
        self.offset = offset

    def __call__(self, module: nn.Module, args: tuple, output: ModelOutput) -> ModelOutput:
        """The output with hidden states `[batch, length, hidden]` instead of `[batch, n + length, hidden]`."""
        if self.slot.enabled:
            output["last_hidden_state"] = self._shorten(output["last_hidden_state"])
            # The last of these is what DeBERTa goes on with.
            if output.get("hidden_states") is not None:
                output["hidden_states"] = tuple(self._shorten(states) for states in output["hidden_states"])
        return output

    def _shorten(self, states: Tensor) -> Tensor:
        return torch.cat([states[:, : self.offset], states[:, self.offset + self.length :]], dim=1)
