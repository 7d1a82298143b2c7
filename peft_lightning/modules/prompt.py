"""Trained embeddings in the input sequence."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_lightning.errors import UserError
from peft_lightning.modules.prompt_length import check_prompt_length

PromptEncoder = Literal["lstm", "mlp"]


class InputPrompt(nn.Module):
    """n trained embeddings P among those of the text; where P comes from is the subclass's.

    The backbone makes room for the virtual tokens (`Backbone.prompt`), in the order that `order` gives.

    Args:
        length: Number n of virtual tokens.
        template: How many of them stand in front of the first token, behind it, and in front of the last one that is
            not padding; None puts all in front: `[P; X]`.

    Raises:
        UserError: The length is not positive, or the template does not share out that many tokens.
    """

    cannot_merge = "a prompt adds tokens to the sequence, which no weight matrix does"

    def __init__(self, length: int, template: Sequence[int] | None = None):
        super().__init__()
        check_prompt_length(length)
        self.template = (length, 0, 0) if template is None else tuple(template)
        if len(self.template) != 3 or min(self.template) < 0 or sum(self.template) != length:
            raise UserError(
                f"template is {list(self.template)}; give three numbers of tokens with the sum {length}, the "
                "prompt_length: in front of the first token, behind it, and in front of the last one."
            )
        self.length = length

    def order(self, mask: Tensor) -> Tensor:
        """What stands at each position of the lengthened sequence.

        Args:
            mask: 1 for real tokens, 0 for the padding behind them, `[batch, length]`.

        Returns:
            `[batch, n + length]`: i < n is the i-th virtual token, n + j the j-th token of the text.
        """
        last = 4 * (mask.long().sum(1, keepdim=True) - 1)
        front, behind, before = self.template
        # The token j is at 4 j + 2, which leaves places before it and behind it.
        keys = [torch.ones_like(last).expand(-1, front), torch.full_like(last, 3).expand(-1, behind)]
        keys += [(last + 1).expand(-1, before), 4 * torch.arange(mask.shape[1], device=mask.device).expand_as(mask) + 2]
        return torch.cat(keys, dim=1).argsort(dim=1, stable=True)

    def virtual(self) -> Tensor:
        """P `[n, width]`."""
        raise NotImplementedError

    def forward(self, base: nn.Embedding, ids: Tensor) -> Tensor:
        """Maps ids `[batch, n + length]`, of which -1 - i is the i-th virtual token, to embeddings `[..., width]`."""
        embeddings = base(ids.clamp(min=0))
        virtual = F.embedding((-1 - ids).clamp(min=0), self.virtual().to(embeddings.dtype))
        return torch.where((ids < 0)[..., None], virtual, embeddings)


class Prompt(InputPrompt):
    """A prompt that is trained directly (Lester et al. 2021, section 2).

    Args:
        start: P `[n, width]` at the start.
        template: As for `InputPrompt`.
    """

    def __init__(self, start: Tensor, template: Sequence[int] | None = None):
        super().__init__(len(start), template)
        self.prompt = nn.Parameter(start.detach().clone())

    def scaled_parameters(self) -> list[nn.Parameter]:
        """The embeddings."""
        return [self.prompt]

    def virtual(self) -> Tensor:
        """The parameter."""
        return self.prompt


class EncodedPrompt(InputPrompt):
    """A prompt that a network computes from trained embeddings E `[n, width]` (Liu et al. 2021, section 3.2).

    - `lstm`: two bidirectional LSTM layers of `hidden` units each way, then `W_2 relu(W_1 z + b_1) + b_2` with W_1
      `[2 hidden, 2 hidden]`,
    - `mlp`: `W_3 relu(W_2 relu(W_1 E + b_1) + b_2) + b_3` with `hidden` units in both hidden layers.

    Once trained, only P is needed: `export` gives the parameter of a plain `Prompt`.

    Args:
        length: Number n of virtual tokens.
        width: Size of an embedding.
        encoder: Which network.
        hidden: Its size.
        template: As for `InputPrompt`.

    Raises:
        UserError: As for `InputPrompt`; the size is not positive.
    """

    def __init__(
        self,
        length: int,
        width: int,
        encoder: PromptEncoder,
        hidden: int,
        template: Sequence[int] | None = None,
    ):
        super().__init__(length, template)
        if hidden < 1:
            raise UserError(f"hidden is {hidden}; give a size of at least 1.")
        self.embedding = nn.Parameter(torch.randn(length, width))
        self.lstm: nn.LSTM | None = None
        if encoder == "lstm":
            self.lstm = nn.LSTM(width, hidden, num_layers=2, bidirectional=True, batch_first=True)
            joined = 2 * hidden
            self.mlp = nn.Sequential(nn.Linear(joined, joined), nn.ReLU(), nn.Linear(joined, width))
        else:
            self.mlp = nn.Sequential(
                nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width)
            )

    def scaled_parameters(self) -> list[nn.Parameter]:
        """Weight and bias of the last linear map, to which P is proportional."""
        return list(self.mlp[-1].parameters())

    def virtual(self) -> Tensor:
        """Computed by the network."""
        if self.lstm is None:
            return self.mlp(self.embedding)
        # CPUs have no LSTM in half precision, and the prompt is too short for it to matter elsewhere.
        with torch.autocast(self.embedding.device.type, enabled=False):
            return self.mlp(self.lstm(self.embedding[None])[0])[0]

    @torch.no_grad()
    def export(self) -> dict[str, Tensor]:
        """The parameter of the `Prompt` that computes the same."""
        return {"prompt": self.virtual()}
