"""How far from the identity a method starts: the init-scale study of Houlsby et al. 2019, section 3.6, figure 6."""

from collections.abc import Iterator

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from peft_lightning.errors import UserError
from peft_lightning.methods import AdaptationMethod


class InitScale(Callback):
    """Redraws what a method inserted from a normal distribution that is cut at two standard deviations.

    What is redrawn is what an inserted module, or a module in it, gives as `scaled_parameters()`; heads, LayerNorms and
    everything else start as without this callback:

    - adapters (`Houlsby`, `Pfeiffer`, `ParallelAdapter`, the adapters of `MAM`): W_down, W_up and the matrices between
      them; the biases stay 0. This is the study of the paper, whose text has 1e-2 and whose code has 1e-3,
    - `Compacter`: the shared A of the Kronecker products, to which W_down and W_up are proportional,
    - `LoRA`, DoRA, `InA`: A and B, as W_down and W_up of an adapter: with B at 0 any A starts at the identity,
    - `AdaLoRA`: P, Q and lambda, for the same reason; `VeRA`: the vector behind B, the only factor that starts at 0,
    - prefixes and prompts (`PrefixTuning`, `PTuningV2`, the prefixes of `MAM`, `PromptTuning`, `PTuning`): keys, values
      and embeddings; where a network computes them, weight and bias of its last map, to which they are proportional.

    A module of your own takes part by a method `scaled_parameters()` that gives a list of parameters. Refused is
    whatever starts at pretrained values or at ones (`FullFineTuning`, `TopLayers`, `LayerNormTuning`, `BitFit`, `IA3`),
    is a decomposition of them (PiSSA), orthonormal (`LoReFT`), or absent (`LinearProbe`). A method's own `init_std` or
    `init` is overridden.

    The numbers follow from `seed_everything`, equally on all devices; the same seed draws the same directions at every
    `std`. They are drawn in `setup`, before the optimizer is made and before a checkpoint is restored, so that a run
    that goes on keeps its weights; a `fit` without a checkpoint starts anew.

    Args:
        std: Standard deviation before the cut, which leaves 0.88 of it.

    Raises:
        UserError: The deviation is not positive.
    """

    def __init__(self, std: float):
        super().__init__()
        if not 0 < std < float("inf"):
            raise UserError(f"std of InitScale is {std}; give a standard deviation above 0.")
        self.std = std

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Redraws before training, and only then.

        Raises:
            UserError: The method has inserted nothing whose scale has a meaning.
        """
        if stage != "fit":
            return
        assert isinstance(pl_module, AdaptationMethod)
        parameters = list(_scaled(pl_module))
        if not parameters:
            raise UserError(
                f"InitScale has nothing to redraw in {type(pl_module).__name__}: what it trains has no random scale "
                "of its own around 0; leave InitScale out, or choose adapters, low-rank updates, prompts or prefixes."
            )
        # Not the global generator, which may have got further on one device than on another.
        generator = torch.Generator().manual_seed(torch.initial_seed())
        with torch.no_grad():
            for parameter in parameters:
                drawn = nn.init.trunc_normal_(torch.empty(parameter.shape), a=-2.0, b=2.0, generator=generator)
                parameter.copy_(self.std * drawn)


def _scaled(method: AdaptationMethod) -> Iterator[nn.Parameter]:
    """The parameters that modules of the method declare as scaled, each once."""
    seen: set[int] = set()
    for insertion in method.backbone.insertions:
        for module in insertion.module.modules():
            declared = getattr(module, "scaled_parameters", None)
            for parameter in declared() if declared else ():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter
