"""The verbs beside LightningCLI's four: on finished runs, on data, on grids of runs."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from jsonargparse import ArgumentParser

from peft_lightning.data import Benchmark
from peft_lightning.runs import RunDirectory, comparison_table, predict_file, print_summary, write_submission


def summary(arguments: list[str]) -> None:
    """Prints the result of a run, or compares several."""
    parser = argparse.ArgumentParser(
        "peft-lightning summary", description="Print the result of a run, or compare several."
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run directory; several give a table")
    runs = [RunDirectory.existing(path) for path in parser.parse_args(arguments).runs]
    if len(runs) == 1:
        print_summary(runs[0])
    else:
        print(comparison_table(runs))


def glue_submission(arguments: list[str]) -> None:
    """Puts predictions of GLUE's tasks together for its server."""
    parser = argparse.ArgumentParser(
        "peft-lightning glue-submission",
        description="Put the predictions of GLUE's tasks together in the layout that its server takes.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run of GLUE whose test split was predicted")
    parser.add_argument("--output", metavar="ZIP", type=Path, required=True, help="zip file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    options = parser.parse_args(arguments)
    runs = [RunDirectory.existing(path) for path in options.runs]
    missing = write_submission(runs, options.output, options.overwrite)
    print(f"Submission: {options.output}")
    if missing:
        print(f"The server also wants {', '.join(missing)}.")


def study(arguments: list[str]) -> None:
    """Executes a grid of runs."""
    parser = argparse.ArgumentParser(
        "peft-lightning study", description="Execute a grid of runs; the same command goes on after an interruption."
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="YAML file that describes the study")
    parser.add_argument("--source", help="where the data is, instead of what the file says")
    options = parser.parse_args(arguments)
    # Imported here because plots take a second to load.
    from peft_lightning.studies import read_study, run_study

    files = run_study(read_study(options.file, options.source))
    print("\n".join(["", next(f for f in files if f.suffix == ".md").read_text(), *map(str, files)]))


def label_file(arguments: list[str]) -> None:
    """Labels the texts of a file with a run."""
    parser = argparse.ArgumentParser("peft-lightning predict", description="Label the texts of a file.")
    parser.add_argument("run", metavar="RUN", help="run directory")
    parser.add_argument(
        "--input", required=True, type=Path, help=".txt with a text a line, or .csv, .tsv, .jsonl, .parquet"
    )
    parser.add_argument("--output", required=True, type=Path, help="JSON lines to write: text, label, scores")
    parser.add_argument("--text_column", help="column of the text; by default the one of the training data")
    parser.add_argument("--text_pair_column", help="column of the second text, for pairs")
    parser.add_argument("--batch_size", type=int, default=32, help="texts that are computed at once")
    parser.add_argument("--device", help="for example cuda:0; by default a GPU if there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    options = parser.parse_args(arguments)
    count = predict_file(
        RunDirectory.existing(options.run),
        options.input,
        options.output,
        options.text_column,
        options.text_pair_column,
        options.batch_size,
        options.device,
        options.overwrite,
    )
    print(f"{count} predictions: {options.output}")


def check_data(arguments: list[str]) -> None:
    """Reads and checks every row of a benchmark, and reports sizes, labels and lengths."""
    parser = ArgumentParser(
        "peft-lightning check-data",
        description="Check every row of a benchmark; print and plot sizes, labels and lengths of its splits.",
        exit_on_error=False,
    )
    parser.add_subclass_arguments(Benchmark, "data", required=True)
    parser.add_argument("--output", type=str, default="data_report", help="directory for tables and figure")
    config = parser.parse_args(arguments)
    # Imported here because plots take a second to load.
    from peft_lightning.data.report import as_text, describe_data, write_data_report

    data = parser.instantiate_classes(config).data
    reports = describe_data(data)
    doubts = data.doubts(split for split in data.splits if split != "train") if "train" in data.splits else []
    files = write_data_report(reports, Path(config.output))
    print("\n".join(["Every row is right.", *doubts, "", as_text(reports), *map(str, files)]))


OTHER_VERBS: Mapping[str, Callable[[list[str]], None]] = {
    "summary": summary,
    "study": study,
    "check-data": check_data,
    "glue-submission": glue_submission,
}
