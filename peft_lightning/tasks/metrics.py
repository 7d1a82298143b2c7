"""Metrics that torchmetrics does not compute as the benchmarks do."""

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix


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
