"""Room for virtual tokens: the sequence is longer inside the model, and as long as the text outside it.

What enters the layers is lengthened, the method's module at the word embeddings puts the trained embeddings there, and
what an encoder or decoder gives is shortened before any pooler or head. So the head reads a true token, and labels of
positions stay right. Where a decoder reads an encoder, it sees the virtual tokens too, as in Lester et al. 2021 (T5).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from peft_lightning.backbone.architectures import Architecture
from peft_lightning.backbone.slots import Slot
from peft_lightning.modules.prompt import InputPrompt


def make_room(
    base: PreTrainedModel, architecture: Architecture, slot: Slot, prompt: InputPrompt
) -> list[RemovableHandle]:
    """Hooks that lengthen what enters the base model, and shorten what leaves its layers.

    Args:
        base: The base model.
        architecture: Its row.
        slot: What stands at the word embeddings; the hooks act while it is switched on.
        prompt: The method's module in it.

    Returns:
        The handles to remove the hooks with.
    """
    room = Room(slot, prompt)
    if architecture.output is None:
        encoder, decoder = base.get_submodule("encoder"), base.get_submodule("decoder")
        return [
            encoder.register_forward_pre_hook(room.lengthen, with_kwargs=True),
            decoder.register_forward_pre_hook(room.lengthen_what_is_read, with_kwargs=True),
        ]
    return [
        base.register_forward_pre_hook(room.lengthen, with_kwargs=True),
        base.get_submodule(architecture.output).register_forward_hook(room.shorten),
    ]


class Room:
    """Three hooks that know where the virtual tokens of a batch are.

    Args:
        slot: What stands at the word embeddings; the hooks do nothing while it is switched off.
        prompt: The method's module, which says where its n tokens go.
    """

    def __init__(self, slot: Slot, prompt: InputPrompt):
        self.slot = slot
        self.prompt = prompt
        self.order = torch.empty(0)

    def lengthen(self, model: nn.Module, args: tuple, inputs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """A pre-hook: ids, mask and segment ids with `n + length` positions; -1 - i is the id of virtual token i."""
        if not self.slot.enabled:
            return args, inputs
        ids = args[0] if args else inputs["input_ids"]
        mask = inputs.get("attention_mask")
        mask = torch.ones_like(ids) if mask is None else mask
        self.order = self.prompt.order(mask)
        virtual = -1 - torch.arange(self.prompt.length, device=ids.device)
        lengthened = {
            "input_ids": self._with(virtual, ids),
            "attention_mask": self._with(torch.ones_like(virtual), mask),
        }
        if inputs.get("token_type_ids") is not None:
            lengthened["token_type_ids"] = self._with(torch.zeros_like(virtual), inputs["token_type_ids"])
        return args[1:], inputs | lengthened

    def lengthen_what_is_read(
        self, decoder: nn.Module, args: tuple, inputs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        """A pre-hook of a decoder: the mask of the encoder's output, with `n + length` positions."""
        mask = inputs.get("encoder_attention_mask")
        if not self.slot.enabled or mask is None:
            return args, inputs
        self.order = self.prompt.order(mask)
        seen = torch.ones(self.prompt.length, dtype=mask.dtype, device=mask.device)
        return args, inputs | {"encoder_attention_mask": self._with(seen, mask)}

    def shorten(self, module: nn.Module, args: tuple, output: ModelOutput) -> ModelOutput:
        """A hook: hidden states `[batch, length, hidden]` instead of `[batch, n + length, hidden]`."""
        if self.slot.enabled:
            output["last_hidden_state"] = self._without(output["last_hidden_state"])
            # The last of these is what DeBERTa goes on with.
            if output.get("hidden_states") is not None:
                output["hidden_states"] = tuple(self._without(states) for states in output["hidden_states"])
        return output

    def _with(self, virtual: Tensor, real: Tensor) -> Tensor:
        return torch.cat([virtual.expand(len(real), -1), real], dim=1).gather(1, self.order)

    def _without(self, states: Tensor) -> Tensor:
        real = self.order.argsort(dim=1)[:, self.prompt.length :]
        return states[torch.arange(len(real), device=real.device)[:, None], real]
