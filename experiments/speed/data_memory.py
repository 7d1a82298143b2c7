"""Peak memory of reading, checking, splitting and tokenising Amazon reviews, by the number of rows.

    python experiments/speed/data_memory.py --rows 10000 1000000

Each size runs in a process of its own with an empty cache. The rows are generated in the publisher's format, about 75
words each, as the real ones have. Prints a Markdown table; `--output` writes it as CSV too.
"""

import argparse
import csv
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = [f"{first}{second}" for first in ("re", "pro", "con", "un", "in", "") for second in ("view", "duct", "tent")]


def generate(path: Path, rows: int) -> None:
    """A CSV file as the publisher's: label, title, content, without a header."""
    draw = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        for number in range(rows):
            writer.writerow([1 + number % 2, f"title {number}", " ".join(draw.choices(WORDS, k=draw.randint(20, 130)))])


def measure(directory: str) -> None:
    """Reads everything that training would, and prints seconds and the peak in MiB."""
    from peft_lightning.data import AmazonPolarity

    begin = time.monotonic()
    data = AmazonPolarity(source=directory, validation_size=1000)
    for split in ("train", "validation"):
        data.encoded(split)
    batches = iter(data.train_dataloader())
    for _ in range(100):
        next(batches)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"RESULT {time.monotonic() - begin:.0f} {peak:.0f}")


def main() -> None:
    """Measures each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    found = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as directory:
            for split, count in (("train", rows), ("test", 10)):
                generate(Path(directory) / f"{split}.csv", count)
            size = (Path(directory) / "train.csv").stat().st_size / 2**20
            command = [sys.executable, __file__, "--measure", directory]
            environment = os.environ | {"HF_HOME": f"{directory}/cache", "TOKENIZERS_PARALLELISM": "true"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            seconds, peak = done.stdout.rpartition("RESULT ")[2].split()
            found.append({"rows": rows, "file MiB": f"{size:.0f}", "seconds": seconds, "peak MiB": peak})
    print("| " + " | ".join(found[0]) + " |\n| " + " | ".join("---:" for _ in found[0]) + " |")
    print("\n".join("| " + " | ".join(str(value) for value in row.values()) + " |" for row in found))
    if options.output:
        with options.output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(found[0]))
            writer.writeheader()
            writer.writerows(found)


if __name__ == "__main__":
    main()
