"""Where a step that is not finite comes from: the batches, the rows in them, the module, the weights."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch.distributed
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from peft_lightning.data import Benchmark

MOST_ROWS_IN_WORDS = 20


@dataclass(frozen=True)
class NonFiniteStep:
    """A step whose loss or gradient is not finite.

    Attributes:
        step: Its number, from 0, as in `metrics.csv`.
        learning_rates: One a parameter group, each value once.
        losses: The loss of each batch that `rows` are of, as text; over all devices.
        loss_is_finite: Whether the loss is, and only a gradient is not.
        module: The module whose parameters have the worst gradient; the nearest to the output if there are several.
        gradient_norm: The norm of the gradient of its parameters, as text.
        modules: Number of trained modules whose gradient is not finite, and of all trained modules.
        broken_weight: Name of a weight of the model that is not finite itself, if there is one.
        rows: Numbers of the rows, in the published table of `table`, of the batches whose loss is not finite; of all
            batches of the step if all losses are finite.
        table: Source and split.
    """

    step: int
    learning_rates: list[float]
    losses: list[str]
    loss_is_finite: bool
    module: str
    gradient_norm: str
    modules: list[int]
    broken_weight: str | None
    rows: list[int]
    table: str

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def __str__(self) -> str:
        """One sentence."""
        rates = ", ".join(f"{rate:.4g}" for rate in self.learning_rates)
        more = len(self.rows) - MOST_ROWS_IN_WORDS
        rows = ", ".join(str(row) for row in self.rows[:MOST_ROWS_IN_WORDS]) + (f" and {more} more" if more > 0 else "")
        weight = f"the weight {self.broken_weight} is not finite itself, " if self.broken_weight else ""
        return (
            f"Step {self.step}, at learning rate {rates}, is not finite: {weight}the loss is {', '.join(self.losses)} "
            f"and the gradient of {self.module} has norm {self.gradient_norm} (the worst; {self.modules[0]} of "
            f"{self.modules[1]} trained modules are not finite); the batch holds rows {rows} of {self.table}."
        )


def find_cause(
    trainer: Trainer, module: LightningModule, optimizer: Optimizer, losses: dict[int, Tensor]
) -> NonFiniteStep:
    """Looks for the cause; all devices have to call this at once.

    Args:
        trainer: The trainer.
        module: The model.
        optimizer: The optimizer that is about to take the step.
        losses: The losses since the last step, scaled as they went backward, by the number of the batch in its epoch.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    scale = trainer.accumulate_grad_batches / (scaler.get_scale() if scaler else 1)
    batches = [(float(loss), _rows(trainer, batch)) for batch, loss in losses.items()]
    gathered: list[Any] = [batches]
    if trainer.world_size > 1:
        gathered = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, batches)
    everywhere = [batch for batches in gathered for batch in batches]
    bad = [batch for batch in everywhere if not math.isfinite(batch[0])]
    norms = _gradient_norms(module)
    nonfinite = [name for name, norm in norms.items() if not math.isfinite(norm)]
    worst = nonfinite[-1] if nonfinite else max(norms, key=lambda name: norms[name])
    weights = (name for name, p in module.named_parameters() if not p.detach().isfinite().all())
    return NonFiniteStep(
        step=trainer.global_step,
        learning_rates=list(dict.fromkeys(float(group["lr"]) for group in optimizer.param_groups)),
        losses=[str(scale * loss) for loss, _ in bad or everywhere],
        loss_is_finite=not bad,
        module=worst,
        gradient_norm=str(norms[worst]),
        modules=[len(nonfinite), len(norms)],
        broken_weight=next(weights, None),
        rows=sorted({row for _, rows in bad or everywhere for row in rows}),
        table=_table(trainer),
    )


def _gradient_norms(module: LightningModule) -> dict[str, float]:
    """The norm of the gradient of each module's own parameters."""
    gradients: dict[str, list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            gradients.setdefault(name.rpartition(".")[0], []).append(parameter.grad)
    return {name: float(nn.utils.get_total_norm(found)) for name, found in gradients.items()}


def _rows(trainer: Trainer, batch: int) -> list[int]:
    """The rows of a batch on this device, which follow from seed and epoch."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, Benchmark):
        return []
    loader: Any = trainer.train_dataloader
    return data.rows_of_batch(loader.batch_sampler.epoch, batch)


def _table(trainer: Trainer) -> str:
    return f"{getattr(trainer.datamodule, 'source', 'the data')} (train)"  # type: ignore[attr-defined]
