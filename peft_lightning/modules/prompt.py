"""Trained embeddings in the input sequence."""

from typing import Literal

import torch
from torch import Tensor, nn

from peft_lightning.errors import UserError
from peft_lightning.modules.prompt_length import check_prompt_length

PromptEncoder = Literal["lstm", "mlp"]


class InputPrompt(nn.Module):
    """`[P; X]`: n trained embeddings in the place of n virtual tokens; where P comes from is the subclass's.

    The backbone makes room for the virtual tokens (`Backbone.prompt`).

    Args:
        length: Number n of virtual tokens.
        offset: Number of real tokens in front of them.

    Raises:
        UserError: The length is not positive, or the offset negative.
    """

    cannot_merge = "a prompt adds tokens to the sequence, which no weight matrix does"

    def __init__(self, length: int, offset: int):
        super().__init__()
        check_prompt_length(length)
        if offset < 0:
            raise UserError(f"offset is {offset}; give a number of tokens of at least 0.")
        self.length = length
        self.offset = offset

    def virtual(self) -> Tensor:
        """P `[n, width]`."""
        raise NotImplementedError

    def forward(self, base: nn.Embedding, ids: Tensor) -> Tensor:
        """Maps token ids `[batch, n + length]` to embeddings `[batch, n + length, width]`."""
        embeddings = base(ids)
        before, after = embeddings[:, : self.offset], embeddings[:, self.offset + self.length :]
        virtual = self.virtual().to(embeddings.dtype).expand(len(embeddings), -1, -1)
        return torch.cat([before, virtual, after], dim=1)


class Prompt(InputPrompt):
    """A prompt that is trained directly (Lester et al. 2021, section 2).

    Args:
        start: P `[n, width]` at the start.
        offset: Number of real tokens in front of it.
    """

    def __init__(self, start: Tensor, offset: int = 0):
        super().__init__(len(start), offset)
        self.prompt = nn.Parameter(start.detach().clone())

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
        offset: Number of real tokens in front of the prompt.

    Raises:
        UserError: As for `InputPrompt`; the size is not positive.
    """

    def __init__(self, length: int, width: int, encoder: PromptEncoder, hidden: int, offset: int = 0):
        super().__init__(length, offset)
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
