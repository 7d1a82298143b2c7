"""Removing every span of layers: shared passes against one pass a span, in one process, in turn.

    python experiments/speed/layer_removal.py --repetitions 1 --output experiments/speed/layer_removal.csv

Houlsby adapters in a BERT of random weights evaluate the same batches both ways, in turn. Printed are how often a layer
is applied to a batch, the seconds of both ways (the median over the repetitions), their ratio (the median of the ratios
of neighbouring repetitions), and the largest difference between the losses and accuracies of both ways; one above 1e-6
ends the script with an error. With `--device cuda` the same on a GPU.
"""

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from peft_lightning.backbone import Span, SpanRemoval, every_span
from peft_lightning.methods import AdaptationMethod, Houlsby
from peft_lightning.tasks import Batch
from peft_lightning.testing import TASK, save_tiny_backbone


def one_by_one(method: AdaptationMethod, batch: Batch) -> dict[Span | None, Tensor]:
    """The logits of the intact model and without each span."""
    found: dict[Span | None, Tensor] = {None: method(batch).logits}
    for span in every_span(len(method.backbone.layers)):
        with method.layers_removed(*span):
            found[span] = method(batch).logits
    return found


def shared(removal: SpanRemoval, method: AdaptationMethod, batch: Batch) -> dict[Span | None, Tensor]:
    """The same in shared passes."""
    return {span: output.logits for span, output in removal.outputs(method, batch)}


def scores(logits: Tensor) -> tuple[float, float]:
    """Mean cross entropy and accuracy against labels 0, 1, 2, 0, 1, ..."""
    labels = torch.arange(len(logits), device=logits.device) % logits.shape[-1]
    accuracy = (logits.argmax(-1) == labels).double().mean()
    return float(torch.nn.functional.cross_entropy(logits.double(), labels)), float(accuracy)


def measure(layers: int, batch_size: int, options: argparse.Namespace) -> dict[str, float | int | str]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as directory:
        sizes = {"hidden_size": options.width, "intermediate_size": 4 * options.width, "num_hidden_layers": layers}
        save_tiny_backbone("bert", directory, num_attention_heads=options.width // 32, **sizes)
        torch.manual_seed(0)
        method = Houlsby(backbone=directory, task=TASK, init_std=0.05).eval().to(options.device)
    removal = SpanRemoval(method.backbone, max_rows=options.max_rows)
    shape = (batch_size, options.length)
    batch = {
        "input_ids": torch.randint(4, 20, shape, device=options.device),
        "attention_mask": torch.ones(shape, dtype=torch.long, device=options.device),
    }
    seconds: dict[str, list[float]] = {"one by one": [], "shared": []}
    difference = 0.0
    for _ in range(options.repetitions + 1):
        naive, found = (
            _timed(seconds["one by one"], options.device, lambda: one_by_one(method, batch)),
            _timed(seconds["shared"], options.device, lambda: shared(removal, method, batch)),
        )
        differences = [
            abs(a - b) for span in naive for a, b in zip(scores(found[span]), scores(naive[span]), strict=True)
        ]
        difference = max(difference, *differences)
        if difference > 1e-6:
            raise SystemExit(f"{layers} layers: the two ways differ by {difference:.1e} in loss or accuracy")
    one, two = (runs[1:] for runs in seconds.values())  # the first of each warms up
    applied_naive, applied = layers * (1 + layers * (layers + 1) // 2), removal.applied // (options.repetitions + 1)
    return {
        "device": options.device,
        "layers": layers,
        "batch size": batch_size,
        "applications one by one": applied_naive,
        "applications shared": applied,
        "ratio of applications": round(applied_naive / applied, 2),
        "seconds one by one": round(statistics.median(one), 2),
        "seconds shared": round(statistics.median(two), 2),
        "ratio of seconds": round(statistics.median(a / b for a, b in zip(one, two, strict=True)), 2),
        "largest difference": f"{difference:.0e}",
    }


def _timed(
    seconds: list[float], device: str, run: Callable[[], dict[Span | None, Tensor]]
) -> dict[Span | None, Tensor]:
    begin = time.perf_counter()
    found = run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - begin)
    return found


def main() -> None:
    """Measures each number of layers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 12, 24])
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--batch_size", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--max_rows", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with torch.inference_mode():
        rows = [measure(layers, size, options) for size in options.batch_size for layers in options.layers]
    print("| " + " | ".join(rows[0]) + " |\n| " + " | ".join("---:" for _ in rows[0]) + " |")
    print("\n".join("| " + " | ".join(map(str, row.values())) + " |" for row in rows))
    if options.output:
        with options.output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
