"""What was counted so far of the metrics that training logs once an epoch."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric


def counted(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """The present sums behind `self.log(..., on_epoch=True)` in training, on this process.

    Returns:
        `values`: those of logged tensors by Lightning's key; `metrics`: those of torchmetrics by their place in the
        method, with the number of updates.
    """
    values, metrics = {}, {}
    for key, item in trainer.fit_loop.epoch_loop._results.items():
        if item.has_reset or not item.meta.on_epoch:
            continue
        if item.is_tensor:
            values[key] = _states(item)
        else:
            metrics[item.meta.metric_attribute] = {"states": _states(item.value), "updates": item.value.update_count}
    return {"values": values, "metrics": metrics}


def count_on(module: LightningModule, metrics: dict[str, dict[str, Any]]) -> None:
    """Lets the method's torchmetrics go on from what `counted` found."""
    for place, earlier in metrics.items():
        metric: Any = module.get_submodule(place)
        for name, state in earlier["states"].items():
            setattr(metric, name, _on(state, module.device))
        metric._update_count, metric._computed = earlier["updates"], None


def add_earlier(trainer: Trainer, values: dict[str, dict[str, Tensor]]) -> None:
    """Joins what was counted of logged tensors with the first batch after the restart, and forgets it."""
    results = trainer.fit_loop.epoch_loop._results
    for key in values.keys() & results.keys():
        item, earlier = results[key], values.pop(key)
        value = earlier["value"].to(item.value.device)
        if item.meta.is_max_reduction or item.meta.is_min_reduction:
            item.value = item.meta.reduce_fx(item.value, value)
        else:
            item.value = item.value + value
        if item.meta.is_mean_reduction:
            item.cumulated_batch_size = item.cumulated_batch_size + earlier["cumulated_batch_size"].to(value.device)
        item._computed = None


def _states(metric: Metric) -> dict[str, Any]:
    states = {name: getattr(metric, name) for name in metric._defaults}
    return {name: _copy(state) for name, state in states.items()}


def _copy(state: Any) -> Any:
    return [_copy(part) for part in state] if isinstance(state, list) else state.detach().cpu().clone()


def _on(state: Any, device: Any) -> Any:
    return [_on(part, device) for part in state] if isinstance(state, list) else state.to(device)
