"""What the studies of this directory have found so far, as `table.csv` and `table.md` beside this file.

    python experiments/benchmarks/table.py

A method is shown once its rate is chosen, with the seeds that are done. The baseline learns nothing from the texts: the
most frequent training label, a constant score, or the first five words of the paragraph as the answer.
"""

import csv
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import peft_lightning.data
from peft_lightning.data import Benchmark
from peft_lightning.runs import RunDirectory
from peft_lightning.studies import Study, read_study
from peft_lightning.studies.execution import finished
from peft_lightning.tasks.answers import exact_match, f1

HERE = Path(__file__).parent
# What the benchmark reports, where that is more than the metric that chooses.
REPORTED = {"regression": ("pearson", "spearman"), "question_answering": ("exact_match", "f1")}


def rows_of(name: str, study: Study) -> Iterator[dict[str, Any]]:
    """A row for each method and metric."""
    results = finished(study)
    chosen = {variant: study.chosen(variant, results) or [] for variant in study.variants}
    done = {
        variant: [results[run.directory] for run in runs if run.directory in results]
        for variant, runs in chosen.items()
    }
    done = {variant: found for variant, found in done.items() if found}
    if not done:
        return
    data = _data(chosen[next(iter(done))][0].directory)
    splits = ["train", *(data.evaluated(stage)[""] for stage in ("validate", "test"))]
    task = data.task_description
    for metric in REPORTED.get(task["type"], (task["monitor"],)):
        for variant, found in done.items():
            yield {
                "benchmark": name,
                "train / validation / test": " / ".join(f"{len(data.table(split)):,}" for split in splits),
                "metric": metric,
                "baseline": _baseline(data, splits[-1], metric),
                "method": variant,
                "chosen": " ".join(f"{option}={value}" for option, value in chosen[variant][0].point),
                **_over_seeds(found, metric),
            }


def _over_seeds(results: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    test = [result["metrics"][f"test/{metric}"] for result in results]
    parameters = results[0]["parameters"]
    return {
        "test": statistics.mean(test),
        "standard error": statistics.stdev(test) / math.sqrt(len(test)) if len(test) > 1 else math.nan,
        "seeds": len(test),
        "trained": parameters["trained"],
        "trained %": 100 * parameters["trained"] / parameters["backbone"],
        "seconds": min(result["seconds"] for result in results),
        "peak MiB": max(result["peak_memory_bytes"] for result in results) / 2**20,
    }


def _data(run: Path) -> Benchmark:
    """The data that a run was trained on."""
    config = RunDirectory(run).read_config()["data"]
    return getattr(peft_lightning.data, config["class_path"].rpartition(".")[2])(**config["init_args"])


def _baseline(data: Benchmark, split: str, metric: str) -> float:
    table = data.table(split)
    if metric in ("matthews", "pearson", "spearman"):
        return 0.0  # of any constant
    if metric == "accuracy":
        most_frequent, _ = Counter(data.table("train")["label"]).most_common(1)[0]
        return sum(label == most_frequent for label in table["label"]) / len(table)
    score = {"exact_match": exact_match, "f1": f1}[metric]
    guesses = (" ".join(context.split()[:5]) for context in table["context"])
    pairs = zip(guesses, table["answers"], strict=True)
    return 100 * statistics.mean(score(guess, answers, no_answer=False) for guess, answers in pairs)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if name.endswith("%") else f"{value:,.0f}" if name in ("seconds", "peak MiB") else ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    names = [name for name in rows[0] if name != "standard error"]
    lines = [names, ["---"] * 3 + ["---:" if name not in ("method", "chosen") else "---" for name in names[3:]]]
    for row in rows:
        digits = 2 if row["metric"] in ("exact_match", "f1") else 4
        score = f"{row['test']:.{digits}f}" + (f" ± {row['standard error']:.{digits}f}" if row["seeds"] > 1 else "")
        shown = {"test": score, "baseline": f"{row['baseline']:.{digits}f}"}
        lines.append([shown.get(name) or _cell(name, row[name]) for name in names])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Writes both files and prints the table."""
    studies = {path.stem.removeprefix("study_"): path for path in sorted(HERE.glob("study_*.yaml"))}
    rows = [row for name, path in studies.items() for row in rows_of(name, read_study(path))]
    with (HERE / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = _markdown(rows)
    (HERE / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
