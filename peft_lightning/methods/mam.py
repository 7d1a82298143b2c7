"""The mix-and-match adapter (MAM; He et al. 2022, arXiv:2110.04366, section 4.6).

A prefix in every attention, without shifted positions (`PrefixTuning`), and a scaled parallel adapter beside every
feed-forward sub-layer (`ParallelAdapter`). Trained with them: the head.

Parameters: `L (2 l d + 2 r d + r + d)` with l virtual tokens and without the network that the prefix comes from in
training; the paper does not count the biases.

The released GLUE script freezes the head at random values by accident; here it is trained.
"""

from typing import Any

from peft_lightning.backbone import Backbone
from peft_lightning.methods.parallel_adapter import ParallelAdapter
from peft_lightning.methods.prefixes import insert_prefixes


class MAM(ParallelAdapter):
    """A prefix at the attention and a scaled parallel adapter at the feed-forward sub-layer.

    Args:
        prompt_length: Number l of virtual tokens; the paper has 30 on XSum, its GLUE script 16.
        projection: Whether the prefix comes from a network while it is trained.
        projection_size: Size of its hidden layer.
        prefix_dropout: Probability with which an entry of the prefix is dropped in training.
        kwargs: Arguments of `ParallelAdapter`.
    """

    identity_tolerance = None
    exported_options = {"projection": False}

    def __init__(
        self,
        prompt_length: int = 16,
        projection: bool = True,
        projection_size: int = 800,
        prefix_dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)

    def adapt(self, backbone: Backbone) -> None:
        """Inserts prefixes and adapters."""
        options = self.hparams
        size = options.projection_size if options.projection else None
        insert_prefixes(backbone, options.prompt_length, size, dropout=options.prefix_dropout)
        super().adapt(backbone)
