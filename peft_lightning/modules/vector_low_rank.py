"""Trained vectors around a random projection that all layers share."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_lightning.errors import UserError


class SharedProjection(nn.Module):
    """The frozen random matrices A `[r, in]` and B `[out, r]` of VeRA, Kaiming uniform.

    They are drawn again from the seed wherever the method is built, and so are in no file: NumPy promises that
    RandomState gives the same numbers in every version and on every machine, which torch does not.

    Args:
        inputs: Size of x.
        outputs: Size of the output.
        rank: Rank r; it may exceed both sizes.
        seed: Seed of the matrices.

    Raises:
        UserError: The rank is not positive, or the seed negative.
    """

    A: Tensor
    B: Tensor

    def __init__(self, inputs: int, outputs: int, rank: int, seed: int):
        super().__init__()
        if rank < 1:
            raise UserError(f"rank is {rank}; give one of at least 1.")
        if seed < 0:
            raise UserError(f"projection_seed is {seed}; give a number of at least 0.")
        random = np.random.RandomState(seed)
        for name, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            # What kaiming_uniform_ draws: a variance of 2 over the number of columns.
            bound = (6 / shape[1]) ** 0.5
            matrix = torch.from_numpy(random.uniform(-bound, bound, shape)).float()
            self.register_buffer(name, matrix, persistent=False)


class VectorLowRank(nn.Module):
    """`W x + b + v_b * (B (v_d * (A x)))` (VeRA, Kopiczko et al. 2023, arXiv:2310.11454, section 3.1).

    `v_b [out]` starts at zero, so that the first output is the frozen one, and `v_d [r]` at `d_init`.

    Args:
        projection: A and B, shared with other modules.
        d_init: Where the entries of `v_d` start.
    """

    def __init__(self, projection: SharedProjection, d_init: float = 0.1):
        super().__init__()
        self.projection = projection
        self.d = nn.Parameter(torch.full((projection.A.shape[0],), d_init))
        self.b = nn.Parameter(torch.zeros(projection.B.shape[0]))

    def scaled_parameters(self) -> list[nn.Parameter]:
        """`v_b`, to which the update is proportional; where `v_d` starts is an option of its own."""
        return [self.b]

    def forward(self, base: nn.Linear, x: Tensor) -> Tensor:
        """Maps `[batch, length, inputs]` to `[batch, length, outputs]`."""
        output = base(x)
        update = self.b * F.linear(self.d * F.linear(x, self.projection.A), self.projection.B)
        # Under autocast the vectors are in single precision, and some models need what the map gave before.
        return output + update.to(output.dtype)

    @torch.no_grad()
    def merge(self, base: nn.Linear) -> None:
        """Adds `diag(v_b) B diag(v_d) A` to the weight of `base`."""
        base.weight += (self.b[:, None] * self.projection.B) @ (self.d[:, None] * self.projection.A)
