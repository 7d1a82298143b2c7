"""What looking at the gradients costs: steps with and without NonFiniteGuard, in one training run, in turn.

    python experiments/speed/nonfinite_guard.py --steps 200 --output experiments/speed/nonfinite_guard.csv

A BERT of random weights is trained, with Houlsby adapters and as a whole, which has the most gradients to look at.
Every second step goes without the guard. Printed are the median seconds of both kinds of steps, and the median of the
ratios of neighbouring steps.
"""

import argparse
import csv
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from peft_lightning.callbacks import NonFiniteGuard
from peft_lightning.methods import AdaptationMethod, FullFineTuning, Houlsby
from peft_lightning.testing import TASK, save_tiny_backbone

WARM_UP = 10


class EverySecondStep(NonFiniteGuard):
    """Looks at even steps only, and measures all."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[bool, list[float]] = {True: [], False: []}
        self._looks = True
        self._began = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts the clock."""
        self._looks = batch_idx % 2 == 0
        self._began = time.perf_counter()
        if self._looks:
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """As the guard, or nothing."""
        if self._looks:
            super().on_before_backward(trainer, pl_module, loss)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """As the guard, or nothing."""
        if self._looks:
            super().on_before_optimizer_step(trainer, pl_module, optimizer)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Stops the clock."""
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds[self._looks].append(time.perf_counter() - self._began)


def measure(method: type[AdaptationMethod], options: argparse.Namespace) -> dict[str, float | int | str]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as directory:
        sizes = {"hidden_size": options.width, "intermediate_size": 4 * options.width}
        heads = options.width // 32
        save_tiny_backbone("bert", directory, num_hidden_layers=options.layers, num_attention_heads=heads, **sizes)
        torch.manual_seed(0)
        model = method(backbone=directory, task=TASK, lr=1e-4)
    shape = (options.batch_size, options.length)
    batch = {
        "input_ids": torch.randint(4, 20, shape),
        "attention_mask": torch.ones(shape, dtype=torch.long),
        "labels": torch.zeros(options.batch_size, dtype=torch.long),
    }
    guard = EverySecondStep()
    trainer = Trainer(
        accelerator=options.device,
        devices=1,
        max_steps=options.steps + WARM_UP,
        callbacks=[guard],
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader([batch] * (options.steps + WARM_UP), batch_size=None))
    looked, bare = (guard.seconds[looks][WARM_UP // 2 :] for looks in (True, False))
    return {
        "method": method.__name__,
        "layers": options.layers,
        "width": options.width,
        "trained": model.parameter_report.trained,
        "steps": options.steps,
        "device": options.device,
        "seconds with": round(statistics.median(looked), 5),
        "seconds without": round(statistics.median(bare), 5),
        "ratio": round(statistics.median(a / b for a, b in zip(looked, bare, strict=True)), 4),
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, value in (("layers", 6), ("width", 384), ("batch_size", 8), ("length", 32), ("steps", 200)):
        parser.add_argument(f"--{option}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = [measure(method, options) for method in (Houlsby, FullFineTuning)]
    for row in rows:
        print(row)
    if options.output:
        with options.output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
