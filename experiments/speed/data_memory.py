"""Peak memory of reading, checking, splitting and tokenising Amazon reviews, by the number of rows.

    python experiments/speed/data_memory.py --rows 10000 1000000

Each size runs in a process of its own with an empty cache. The rows are generated in the publisher's format, about 75
words each, as the real ones have. Prints a Markdown table; `--output` writes it as CSV too.

Memory is sampled from /proc/self/status every 5 ms: `anonymous` is what the process itself holds (RssAnon), `mapped`
are pages of files (RssFile), here of libraries and of the cache of datasets, which the kernel takes back when it needs
them; `resident` is the peak of both together (VmRSS). The peaks need not be at the same time.
"""

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

WORDS = [f"{first}{second}" for first in ("re", "pro", "con", "un", "in", "") for second in ("view", "duct", "tent")]
COUNTERS = {"VmRSS": "resident MiB", "RssAnon": "anonymous MiB", "RssFile": "mapped MiB"}


def generate(path: Path, rows: int, words: tuple[int, int]) -> None:
    """A CSV file as the publisher's: label, title, content, without a header."""
    draw = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        for number in range(rows):
            writer.writerow([1 + number % 2, f"title {number}", " ".join(draw.choices(WORDS, k=draw.randint(*words)))])


class Peaks(threading.Thread):
    """Samples the memory of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib = dict.fromkeys(COUNTERS.values(), 0)
        self.ended = threading.Event()

    def run(self) -> None:
        """Keeps the peaks until it is told to stop."""
        while not self.ended.wait(0.005):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in COUNTERS:
                    self.mib[COUNTERS[name]] = max(self.mib[COUNTERS[name]], int(value.split()[0]) // 1024)


def measure(directory: str, backbone: str) -> None:
    """Reads everything that training would, and prints seconds and peaks."""
    peaks = Peaks()
    peaks.start()
    from peft_lightning.data import AmazonPolarity

    begin = time.monotonic()
    data = AmazonPolarity(source=directory, validation_size=1000, backbone=backbone)
    data.setup("fit")
    data.contents()
    batches = iter(data.train_dataloader())
    for _ in range(100):
        next(batches)
    seconds = time.monotonic() - begin
    peaks.ended.set()
    peaks.join()
    print("RESULT", round(seconds), *peaks.mib.values())


def measure_rows(rows: int, words: tuple[int, int], backbone: str) -> dict[str, str]:
    """What `measure` says of so many generated rows, in a process of its own with an empty cache."""
    with tempfile.TemporaryDirectory() as directory:
        for split, count in (("train", rows), ("test", 10)):
            generate(Path(directory) / f"{split}.csv", count, words)
        size = (Path(directory) / "train.csv").stat().st_size / 2**20
        command = [sys.executable, __file__, "--measure", directory, "--backbone", backbone]
        environment = os.environ | {"HF_HOME": f"{directory}/cache", "TOKENIZERS_PARALLELISM": "true"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found = done.stdout.rpartition("RESULT ")[2].split()
    columns = ["rows", "file MiB", "seconds", *COUNTERS.values()]
    return dict(zip(columns, [str(rows), f"{size:.0f}", *found], strict=True))


def main() -> None:
    """Measures each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--words", type=int, nargs=2, default=[20, 130], metavar=("LEAST", "MOST"))
    parser.add_argument("--backbone", default="embedded:minilm-l6", help="whose tokenizer to use")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.backbone)
        return
    found = [measure_rows(rows, tuple(options.words), options.backbone) for rows in options.rows]
    print("| " + " | ".join(found[0]) + " |\n| " + " | ".join("---:" for _ in found[0]) + " |")
    print("\n".join("| " + " | ".join(row.values()) + " |" for row in found))
    if options.output:
        with options.output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(found[0]))
            writer.writeheader()
            writer.writerows(found)


if __name__ == "__main__":
    main()
