"""Metrics that torchmetrics does not compute as the benchmarks do."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.functional.regression import pearson_corrcoef, spearman_corrcoef
from torchmetrics.utilities import dim_zero_cat


class Matthews(MulticlassConfusionMatrix):
    """Matthews correlation coefficient; 0 where it is undefined, as in scikit-learn and so in GLUE's scorer.

    `(c s - sum_k t_k p_k) / sqrt((s^2 - sum_k p_k^2) (s^2 - sum_k t_k^2))` with s examples, c of them right, t_k of
    class k and p_k predicted so. torchmetrics' own metric returns a limit, for example 0.41, where a single class is
    predicted, so that a model that learned nothing would seem to have.
    """

    def compute(self) -> Tensor:
        """The coefficient, a scalar."""
        counts = self.confmat.cpu().double()
        true, predicted, total = counts.sum(1), counts.sum(0), counts.sum()
        covariance = counts.trace() * total - true @ predicted
        spread = (total**2 - predicted @ predicted) * (total**2 - true @ true)
        return torch.where(spread > 0, covariance / spread.sqrt(), 0.0).to(self.confmat.device, torch.float32)


class Spearman(Metric):
    """Spearman's rank correlation; 0 where it is undefined, because one side is constant, rather than not a number.

    The scores of all examples are kept, so that those of several devices are ranked together.
    """

    found: list[Tensor]
    wanted: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("found", [], dist_reduce_fx="cat")
        self.add_state("wanted", [], dist_reduce_fx="cat")

    def update(self, found: Tensor, wanted: Tensor) -> None:
        """Adds the scores of a batch, `[batch]` both."""
        self.found.append(found.detach())
        self.wanted.append(wanted.detach())

    def compute(self) -> Tensor:
        """The coefficient, a scalar."""
        found, wanted = dim_zero_cat(self.found).double(), dim_zero_cat(self.wanted).double()
        if len(found.unique()) < 2 or len(wanted.unique()) < 2:
            return torch.zeros((), device=found.device)
        return self.coefficient(found, wanted).float()

    @staticmethod
    def coefficient(found: Tensor, wanted: Tensor) -> Tensor:
        """Pearson's coefficient of the ranks."""
        return spearman_corrcoef(found, wanted)


class Pearson(Spearman):
    """Pearson's correlation, in double precision; 0 where it is undefined."""

    @staticmethod
    def coefficient(found: Tensor, wanted: Tensor) -> Tensor:
        """The covariance divided by both standard deviations."""
        return pearson_corrcoef(found, wanted)
