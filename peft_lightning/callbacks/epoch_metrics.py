"""What was counted so far of the metrics that training logs once an epoch."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric

NOTHING: dict[str, dict[str, Any]] = {"values": {}, "metrics": {}}


def counted(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """The present sums behind `self.log(..., on_epoch=True)` in training, on this process.

    Returns:
        `values`: those of logged tensors by Lightning's key; `metrics`: those of torchmetrics by their place in the
        method, with the number of updates. Each with the arguments with which it was logged.
    """
    values, metrics = {}, {}
    for key, item in trainer.fit_loop.epoch_loop._results.items():
        if item.has_reset or not item.meta.on_epoch:
            continue
        if item.is_tensor:
            values[key] = {"states": _states(item), "logged": _logged(item.meta)}
        else:
            states, updates = _states(item.value), item.value.update_count
            metrics[item.meta.metric_attribute] = {"states": states, "updates": updates, "logged": _logged(item.meta)}
    return {"values": values, "metrics": metrics}


def count_on(module: LightningModule, metrics: dict[str, dict[str, Any]]) -> None:
    """Lets the method's torchmetrics go on from what `counted` found."""
    for place, earlier in metrics.items():
        metric: Any = module.get_submodule(place)
        for name, state in earlier["states"].items():
            setattr(metric, name, _on(state, module.device))
        metric._update_count, metric._computed = earlier["updates"], None


def log_again(trainer: Trainer, earlier: dict[str, dict[str, Any]]) -> None:
    """Logs what `counted` found where no batch follows in the epoch that would."""
    results = trainer.fit_loop.epoch_loop._results
    for key, item in earlier["values"].items():
        _log(trainer, torch.zeros((), device=trainer.strategy.root_device), item["logged"])
        for name, state in item["states"].items():
            setattr(results[key], name, state.to(trainer.strategy.root_device))
        results[key]._computed = None
    for place, item in earlier["metrics"].items():
        _log(trainer, trainer.lightning_module.get_submodule(place), item["logged"], metric_attribute=place)


def _log(trainer: Trainer, value: Any, logged: dict[str, Any], **options: Any) -> None:
    logged = logged | {"reduce_fx": getattr(torch, logged["reduce_fx"]), "sync_dist_fn": trainer.strategy.reduce}
    trainer.fit_loop.epoch_loop._results.log(value=value, on_epoch=True, batch_size=1, **logged, **options)


def _logged(meta: Any) -> dict[str, Any]:
    names = ("fx", "name", "prog_bar", "logger", "on_step", "add_dataloader_idx")
    sync = {"sync_dist": meta.sync.should, "rank_zero_only": meta.sync.rank_zero_only}
    return {name: getattr(meta, name) for name in names} | {"reduce_fx": meta.reduce_fx.__name__} | sync


def add_earlier(trainer: Trainer, values: dict[str, dict[str, dict[str, Tensor]]]) -> None:
    """Joins what was counted of logged tensors with the first batch after the restart, and forgets it."""
    results = trainer.fit_loop.epoch_loop._results
    for key in values.keys() & results.keys():
        item, earlier = results[key], values.pop(key)["states"]
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
