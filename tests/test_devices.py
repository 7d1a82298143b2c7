"""Two processes compute what one does, for every kind of task."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from small_choices import write_swag
from small_conll import write_conll
from small_glue import write_mnli, write_stsb
from small_squad import write_squad
from small_texts import write_pairs

from peft_lightning.cli import main
from peft_lightning.runs import RunDirectory

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
# Kind of task -> data, files, architecture, options. Rows to evaluate and to predict are no multiples of 2 or of 4.
KINDS = {
    "classification": ("GLUE", partial(write_mnli, dev=11, test=7), "roberta", ["--data.task=mnli"]),
    "regression": ("GLUE", partial(write_stsb, dev=9, test=5), "bert", ["--data.task=stsb"]),
    "multiple_choice": ("SWAG", partial(write_swag, dev=11), "distilbert", []),
    "question_answering": (
        "SQuAD",
        partial(write_squad, version="2.0"),
        "electra",
        ["--data.version=2.0", "--data.doc_stride=5"],
    ),
    "token_classification": ("CoNLL", write_conll, "gpt2", []),
    "sequence_to_sequence": (
        "TextToText",
        partial(write_pairs, count=71),
        "bart",
        [
            *("--data.metrics=[rouge,bleu,bleu_no_diacritics]", "--data.num_beams=2"),
            *("--data.max_target_length=6", "--data.max_new_tokens=5"),
        ],
    ),
}


def fit_command(kind, tiny, directory):
    data, write, model_type, options = KINDS[kind]
    (directory / "data").mkdir(parents=True)
    return [
        *("fit", "--model=LoRA", f"--model.backbone={tiny(model_type)}", "--model.lr=1e-2", f"--data={data}"),
        *(f"--data.source={write(directory / 'data')}", "--data.batch_size=4", "--data.max_length=24", *options),
        *(f"--run_dir={directory / 'run'}", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2", *QUIET),
    ]


def take_results(run):
    """The metrics, and the predictions by file; the run has neither any more."""
    result = run.read_result()
    paths = [
        path
        for path in run.path.iterdir()
        if "predictions" in path.name or path.name == "null_odds.json" or path.suffix == ".tsv"
    ]
    files = {path.name: path.read_text(encoding="utf-8") for path in paths}
    for path in paths:
        path.unlink()
    run.result.write_text(json.dumps(result | {"metrics": {}}), encoding="utf-8")
    return result["metrics"], files


def counted(metrics):
    """Those that are made of whole numbers, and so have no digits that depend on the order of the examples."""
    return {name: value for name, value in metrics.items() if not name.endswith(("loss", "pearson", "spearman"))}


def essence(name, text):
    """What a file of predictions says, but for scores, whose last digits depend on the padding of the batch."""
    kept = ("row", "id", "label", "tags", "answer", "prediction")
    if name.endswith(".jsonl"):
        rows = [json.loads(line) for line in text.splitlines()]
        return [{key: value for key, value in row.items() if key in kept} for row in rows]
    if name.endswith(".tsv"):
        return [line.split("\t")[0] for line in text.splitlines()]
    return text if name.endswith(".conll") else list(json.loads(text))


def test_two_processes_train_evaluate_and_predict_every_example_once(tiny, tmp_path):
    """One run is trained on both, as users start it; all are evaluated on both, and on one."""
    runs = {kind: RunDirectory(tmp_path / kind / "run") for kind in KINDS}
    commands = {kind: fit_command(kind, tiny, tmp_path / kind) for kind in KINDS}
    alone = {}
    for kind in list(KINDS)[1:]:
        main(commands[kind])
        main(["predict", str(runs[kind].path), *QUIET])
        alone[kind] = take_results(runs[kind])
    on_two = [commands["classification"], ["predict", str(runs["classification"].path), *QUIET]]
    on_two += [[verb, str(runs[kind].path), *QUIET] for kind in alone for verb in ("validate", "predict")]
    starts = [{"command": command} for command in on_two]
    (tmp_path / "commands.json").write_text(json.dumps(starts), encoding="utf-8")
    script = Path(__file__).with_name("several_commands.py")
    subprocess.run([sys.executable, str(script), str(tmp_path / "commands.json")], check=True, timeout=600)
    together = {kind: take_results(run) for kind, run in runs.items()}
    for verb in ("validate", "predict"):
        main([verb, str(runs["classification"].path), *QUIET])
    alone["classification"] = take_results(runs["classification"])

    for kind, (metrics, files) in alone.items():
        metrics_of_two, files_of_two = together[kind]
        assert metrics_of_two == pytest.approx(metrics, abs=1e-5), kind
        assert counted(metrics_of_two) == counted(metrics), kind
        assert files_of_two.keys() == files.keys()
        for name, text in files.items():
            assert essence(name, files_of_two[name]) == essence(name, text), kind
    counts = {kind: len(together[kind][1]["predictions.jsonl"].splitlines()) for kind in KINDS}
    assert list(counts.values()) == [7, 5, 9, 9, 9, 7]


def test_two_processes_make_tokens_once(tiny, reviews, tmp_path):
    """Training and validation rows are checked and encoded by the first process; the second finds both in the cache."""
    command = [sys.executable, str(Path(__file__).with_name("logged_maps.py"))]
    options = [f"--model.backbone={tiny()}", "--data=TextClassification", f"--data.source={reviews}"]
    options += ["--data.max_length=16", f"--run_dir={tmp_path / 'run'}", "--trainer.max_steps=1"]
    devices = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    package = str(Path(__file__).parents[1])
    alone = os.environ | {"HF_HOME": str(tmp_path / "cache"), "MAPS": str(tmp_path / "maps"), "PYTHONPATH": package}
    subprocess.run([*command, "fit", "--model=Houlsby", *options, *QUIET, *devices], check=True, timeout=300, env=alone)
    assert (tmp_path / "maps").read_text().split("\n") == ["0 _check_batch", "0 _encode_batch"] * 2 + [""]
