"""Memory does not grow with the number of rows, but for a few bytes each; texts and tokens stay in files."""

import csv
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from datasets import ClassLabel, Dataset

from peft_lightning.data.batches import EvaluationBatches, TrainingBatches
from peft_lightning.data.splits import split_rows
from peft_lightning.data.whole_numbers import whole_numbers

SCRIPT = Path(__file__).parents[2] / "experiments" / "speed" / "data_memory.py"


def peak_of_splitting_and_batching(rows, directory):
    """Bytes, of Python and NumPy at the peak and of Arrow in the end."""
    numbers = np.arange(rows)
    table = Dataset.from_dict({"row": numbers, "label": numbers % 2, "length": numbers % 100 + 3})
    table.cast_column("label", ClassLabel(names=["a", "b"])).save_to_disk(directory)
    table = Dataset.load_from_disk(directory)
    del numbers
    before = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    parts = split_rows(table, {"validation": 0.1, "test": 0.1}, seed=0, where="rows")
    assert sum(map(len, TrainingBatches(whole_numbers(table, "length"), 32, seed=0))) == rows
    assert sum(map(len, EvaluationBatches(whole_numbers(table, "length"), 32))) == rows
    assert sum(map(len, parts.values())) == rows
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak + pyarrow.total_allocated_bytes() - before


def test_splits_and_batches_take_a_few_bytes_a_row(tmp_path):
    few, many = (peak_of_splitting_and_batching(rows, tmp_path / str(rows)) for rows in (20_000, 120_000))
    assert (many - few) / 100_000 < 32


@pytest.mark.long
def test_memory_of_its_own_stays_flat_from_reading_to_training(tiny, tmp_path):
    """What the process itself holds at the peak: pages of mapped files, which the kernel takes back, not counted."""
    command = [sys.executable, str(SCRIPT), "--rows", "20000", "300000", "--words", "2", "4"]
    subprocess.run([*command, "--backbone", str(tiny()), "--output", str(tmp_path / "found.csv")], check=True)
    with (tmp_path / "found.csv").open(encoding="utf-8") as file:
        few, many = (int(row["anonymous MiB"]) for row in csv.DictReader(file))
    assert (many - few) * 2**20 / 280_000 < 48
