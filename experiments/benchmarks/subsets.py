"""Smaller copies of files whose evaluation would take too long on a CPU, and the splits that a sample lacks.

    python experiments/benchmarks/subsets.py DATA OUTPUT

- `mnli`: the training pairs, and every tenth of the matched development pairs.
- `squad`: the training questions, and those of every eightieth development paragraph.
- `xsum`: of the training articles the last 100 become the test split.
- `wmt16_en_ro`: the first 3,000 training, 100 validation and 100 test sentences.

DATA is laid out as `experiments/benchmarks/README.md` says.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path


def mnli(source: Path, output: Path) -> None:
    """`train.tsv` and `dev_matched.tsv`, with their headers."""
    _write(output / "train.tsv", _lines(source / "train.tsv"))
    header, *pairs = _lines(source / "dev_matched.tsv")
    _write(output / "dev_matched.tsv", [header, *pairs[::10]])


def squad(source: Path, output: Path) -> None:
    """`train-v1.1.json` and `dev-v1.1.json`."""
    (train,) = source.glob("train*.json")
    _write(output / "train-v1.1.json", _lines(train))
    dev = json.loads((source / "dev-v1.1.json").read_text(encoding="utf-8"))
    paragraphs = [(article, paragraph) for article in dev["data"] for paragraph in article["paragraphs"]][::80]
    data = [{"title": article["title"], "paragraphs": [paragraph]} for article, paragraph in paragraphs]
    _write(output / "dev-v1.1.json", [json.dumps({"version": "1.1", "data": data}, ensure_ascii=False)])


def xsum(source: Path, output: Path) -> None:
    """Three files of JSON lines."""
    articles = _lines(source / "train.jsonl")
    _write(output / "train.jsonl", articles[:-100])
    _write(output / "validation.jsonl", _lines(source / "validation.jsonl"))
    _write(output / "test.jsonl", articles[-100:])


def wmt16_en_ro(source: Path, output: Path) -> None:
    """A file a split and language."""
    for split, size in {"train": 3000, "validation": 100, "test": 100}.items():
        for language in ("en", "ro"):
            name = f"{split}.{language}"
            _write(output / name, _lines(source / name)[:size])


def _lines(path: Path) -> list[str]:
    # Only at line feeds: sentences may hold other characters that Python takes for the end of a line.
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Writes all of them."""
    parser = argparse.ArgumentParser(description="Write smaller copies of the benchmarks' files.")
    parser.add_argument("data", type=Path, help="directory of the files as published")
    parser.add_argument("output", type=Path, help="directory to write")
    options = parser.parse_args()
    mnli(options.data / "glue" / "MNLI", options.output / "mnli")
    squad(options.data / "squad", options.output / "squad")
    xsum(options.data / "xsum", options.output / "xsum")
    wmt16_en_ro(options.data / "wmt16_en_ro", options.output / "wmt16_en_ro")


if __name__ == "__main__":
    main()
