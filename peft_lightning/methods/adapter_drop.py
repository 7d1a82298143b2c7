"""AdapterDrop (Rueckle et al. 2021, arXiv:2010.11918): adapters without those of the lower layers.

Specialised (`fixed`): the lower layers never have adapters, in training and after it, so that the backward pass ends
above them. Robust (`random`): each training batch leaves out the adapters of the lowest n layers, n drawn uniformly
from {0 ... drop_layers}; afterwards `layers_removed(0, n - 1)` gives the model without them for any n. The paper's
robust mode draws up to one layer less than there are (11 of 12).

The gradients of adapters that were left out are zero, as in the original, not missing: moments of the optimizer decay
as usual, and several devices agree.
"""

import random
from collections.abc import Iterable
from typing import Any, Literal

from torch import Tensor

from peft_lightning.backbone import Backbone, Layer, Site
from peft_lightning.backbone.slots import Slot
from peft_lightning.errors import UserError
from peft_lightning.methods.base import AdaptationMethod
from peft_lightning.tasks import Batch


class AdapterMethod(AdaptationMethod):
    """A method of adapters, which the lower layers can do without.

    Args:
        drop_layers: Number of lower layers without adapters.
        drop: `fixed` for always these, `random` for a number up to it that is drawn for each batch.
        kwargs: Arguments of `AdaptationMethod`.
    """

    def __init__(self, drop_layers: int = 0, drop: Literal["fixed", "random"] = "fixed", **kwargs: Any):
        super().__init__(**kwargs)

    def adapted_layers(self, backbone: Backbone) -> list[Layer]:
        """The layers that get adapters.

        Raises:
            UserError: None would be left.
        """
        drop_layers, count = self.hparams.drop_layers, len(backbone.layers)
        if not 0 <= drop_layers < count:
            raise UserError(f"drop_layers is {drop_layers}; this backbone has {count} layers: give 0 to {count - 1}.")
        return backbone.layers[drop_layers:] if self.hparams.drop == "fixed" else backbone.layers

    def adapter_sites(self, backbone: Backbone, *names: str) -> list[Site]:
        """The sites of these names in the layers that get adapters."""
        kept = {layer.index for layer in self.adapted_layers(backbone)}
        return [site for site in backbone.sites(*names) if site.layer in kept]

    def train_layer_norms(self, backbone: Backbone) -> None:
        """Unfreezes the LayerNorms; where lower layers have no adapters, those of the others."""
        layers = self.adapted_layers(backbone)
        everywhere = len(layers) == len(backbone.layers)
        backbone.unfreeze(*(backbone.layer_norms if everywhere else backbone.layer_norms_of(layers)), role="layer_norm")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch; in `random` mode without the adapters of the lowest layers."""
        if self.hparams.drop == "fixed" or not self.hparams.drop_layers:
            return super().training_step(batch, batch_idx)
        left_out = self._draw(batch_idx)
        self._switch(range(left_out), False)
        unused = [p for i in self.backbone.insertions if not i.slot.enabled for p in i.module.parameters()]
        return super().training_step(batch, batch_idx) + sum(0 * p.sum() for p in unused)

    def on_after_backward(self) -> None:
        """Puts back what was left out; not earlier, because gradient checkpointing computes the step again."""
        if self.hparams.drop == "random":
            self._switch(range(self.hparams.drop_layers), True)

    def _draw(self, batch_idx: int) -> int:
        """The same number on every device, and in a run that is repeated."""
        return random.Random(f"{self.current_epoch} {batch_idx}").randint(0, self.hparams.drop_layers)

    def _switch(self, layers: Iterable[int], enabled: bool) -> None:
        wanted = set(layers)
        for insertion in self.backbone.insertions:
            # Prefixes, which some methods combine with adapters, stay.
            if isinstance(insertion.slot, Slot) and insertion.site.layer in wanted:
                insertion.slot.enabled = enabled
