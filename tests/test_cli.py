"""The command line as its users meet it, on tiny backbones and small files."""

import csv
import json
import subprocess
import sys

import pytest
import torch
import yaml
from small_files import rows_of, write_reviews
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import peft_lightning
from peft_lightning import load_run, methods
from peft_lightning.callbacks import environment
from peft_lightning.cli import main
from peft_lightning.runs import RunDirectory

METHODS = [
    name
    for name, kind in vars(methods).items()
    if isinstance(kind, type) and issubclass(kind, methods.AdaptationMethod) and kind is not methods.AdaptationMethod
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny, reviews):
    """A finished run of Houlsby adapters, with test metrics."""
    run = tmp_path_factory.mktemp("finished") / "run"
    options = ["--model.bottleneck=8", "--model.lr=1e-2", "--data.batch_size=8", "--data.max_length=16"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    main(
        [
            *("fit", "--model=Houlsby", f"--model.backbone={tiny()}", f"--run_dir={run}", "--trainer.max_epochs=8"),
            *("--data=TextClassification", f"--data.source={reviews}", "--trainer.accelerator=cpu", *options, *quiet),
        ]
    )
    main(["test", str(run), *quiet])
    return RunDirectory(run)


# Two generations of both, each with its manifest.
CHECKPOINTS = ("best", "best.previous", "last", "last.previous")


def test_a_run_directory_holds_all_that_it_should(finished):
    names = {path.relative_to(finished.path).as_posix() for path in finished.path.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("tensorboard/events.out.tfevents")}
    assert events
    assert names - events == {
        "config.yaml",
        "environment.json",
        "metrics.csv",
        "result.json",
        *(f"checkpoints/{name}.ckpt{ending}" for name in CHECKPOINTS for ending in ("", ".json")),
        "tensorboard/hparams.yaml",
    }


def test_the_result_says_what_came_out_and_what_it_cost(finished):
    result = finished.read_result()
    assert result["status"] == "done"
    assert result["seed"] == 0
    assert result["method"] == "Houlsby"
    counts = {"method": 2 * 3 * (2 * 8 * 32 + 8 + 32), "head": 2 * 32 + 2, "layer_norm": 7 * 2 * 32}
    assert {name: result["parameters"][name] for name in counts} == counts
    assert result["parameters"]["trained"] == sum(counts.values())
    assert result["parameters"]["backbone"] > 10_000
    assert {f"{stage}/{name}" for stage in ("val", "test") for name in ("loss", "accuracy", "f1", "matthews")} == set(
        result["metrics"]
    )
    assert result["metrics"]["test/accuracy"] > 0.7
    assert 0 < result["seconds"] < 600
    assert result["peak_memory_bytes"] > 2**20
    assert result["checkpoint_bytes"] == finished.best_checkpoint.stat().st_size


def test_the_metrics_file_has_the_curves(finished):
    rows = rows_of(finished.metrics)
    assert list(rows[0])[:2] == ["epoch", "step"]
    validations = [row for row in rows if row["val/accuracy"]]
    assert [int(row["step"]) for row in validations] == list(range(11, 96, 12))
    assert float(validations[-1]["val/loss"]) < float(validations[0]["val/loss"])
    best = max(float(row["val/accuracy"]) for row in validations)
    assert finished.read_result()["metrics"]["val/accuracy"] == best


def test_tensorboard_has_the_curves_and_real_metrics_beside_the_options(finished):
    events = EventAccumulator(str(finished.path / "tensorboard")).Reload()
    assert {"train/loss", "train/lr", "val/accuracy"} <= set(events.Tags()["scalars"])
    assert "hp_metric" not in events.Tags()["scalars"]


def test_the_environment_is_recorded(finished):
    environment = json.loads(finished.environment.read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["examples"] == {"train": 96, "validation": 19}
    assert {"command", "python", "host", "cpus", "git", "started"} <= set(environment)


def test_checkpoints_hold_only_what_was_trained(finished):
    method = load_run(finished.path)
    for path, resumable in ((finished.best_checkpoint, False), (finished.last_checkpoint, True)):
        content = torch.load(path, weights_only=True)
        assert content["state_dict"].keys() == method.trained_state().keys()
        assert ("optimizer_states" in content) == resumable
    moments = torch.load(finished.last_checkpoint, weights_only=True)["optimizer_states"][0]["state"]
    assert len(moments) == len(method.trained_state())


def test_loading_a_run_gives_the_tested_model(finished):
    method = load_run(finished.path)
    assert not method.training
    assert type(method).__name__ == "Houlsby"
    pipeline = method.pipeline()
    assert pipeline("great best warm good")[0]["label"] == "good"
    assert pipeline("dull worst little bad")[0]["label"] == "bad"


def test_the_backbone_is_untouched_by_training(finished, tiny):
    method = load_run(finished.path)
    method.remove()
    fresh = type(method)(**method.hparams)
    for name, parameter in method.backbone.pretrained.items():
        assert torch.equal(parameter, fresh.backbone.pretrained[name]), name


def test_validating_a_run_gives_the_recorded_metrics(finished, capsys):
    before = finished.read_result()
    main(["validate", str(finished.path), "--trainer.enable_progress_bar=false"])
    after = finished.read_result()
    assert after["metrics"] == pytest.approx(before["metrics"], abs=1e-6)
    assert after["status"] == "done"


def test_testing_from_the_saved_configuration_is_testing_the_run(finished):
    before = finished.read_result()["metrics"]
    main(["test", f"--config={finished.config}", "--trainer.enable_progress_bar=false"])
    assert finished.read_result()["metrics"] == before


def test_options_given_beside_a_checkpoint_file_count(finished, capsys):
    """Lightning would take the options from inside the file: here they decide what is evaluated."""
    with pytest.raises(SystemExit):
        main(["test", str(finished.path), f"--ckpt_path={finished.best_checkpoint}", "--model.bottleneck=4"])
    assert "is [8, 32] there and [4, 32] here" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl"])
def test_predicting_a_file(finished, tmp_path, suffix):
    texts = ["great best warm good", "dull, worst, little bad", 'best "great" warm good']
    source, target = tmp_path / f"in{suffix}", tmp_path / "out" / "predictions.jsonl"
    if suffix == ".txt":
        source.write_text("\n".join(texts) + "\n", encoding="utf-8")
    elif suffix == ".csv":
        with source.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["id", "text"], *enumerate(texts)])
    else:
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    main(["predict", str(finished.path), "--input", str(source), "--output", str(target), "--batch_size", "2"])
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == texts
    assert [row["label"] for row in rows] == ["good", "bad", "good"]
    wanted = load_run(finished.path).pipeline()(texts, top_k=None)
    for row, entries in zip(rows, wanted, strict=True):
        assert row["scores"] == pytest.approx({entry["label"]: entry["score"] for entry in entries}, abs=1e-6)
        assert sum(row["scores"].values()) == pytest.approx(1)


def test_predicting_the_test_split_gives_rows_in_the_order_of_the_file(finished, reviews):
    main(["predict", str(finished.path), "--trainer.enable_progress_bar=false"])
    rows = [json.loads(line) for line in finished.predictions.read_text(encoding="utf-8").splitlines()]
    finished.predictions.unlink()
    published = rows_of(reviews / "test.csv")
    assert [row["row"] for row in rows] == list(range(1, 22))
    assert [row["text"] for row in rows] == [row["text"] for row in published]
    assert [row["true"] for row in rows] == [row["label"] for row in published]
    predicted = load_run(finished.path).pipeline()([row["text"] for row in published])
    assert [row["label"] for row in rows] == [entry["label"] for entry in predicted]
    assert list(rows[0]["scores"]) == ["bad", "good"]


def test_the_summary_prints_result_costs_and_next_commands(finished, capsys):
    main(["summary", str(finished.path)])
    printed = capsys.readouterr().out
    accuracy = f"{finished.read_result()['metrics']['test/accuracy']:.4f}"
    for text in ("test/accuracy", accuracy, "parameters: trained", "training time", "checkpoint size", "peak memory"):
        assert text in printed
    assert f"Run directory: {finished.path}" in printed
    assert f"peft-lightning predict {finished.path} --input" in printed


def test_the_summary_says_how_the_commands_are_found_where_they_are_not(finished, tmp_path, capsys, monkeypatch):
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    main(["summary", str(finished.path)])
    assert "  source venv/bin/activate\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [["--trainer.limit_test_batches=1"], ["--ckpt_path=last"], ["--data.source={other}"]], ids=str
)
def test_an_evaluation_of_something_else_is_not_recorded_as_the_run(finished, tmp_path, capsys, options):
    other = tmp_path / "other"
    other.mkdir()
    write_reviews(other / "test.csv", 10, seed=9)
    before = finished.read_result()
    main(["test", str(finished.path), "--trainer.enable_progress_bar=false", *(o.format(other=other) for o in options)])
    assert "Not recorded" in capsys.readouterr().out
    assert finished.read_result() == before


def test_a_run_trained_on_a_cluster_is_evaluated_here(finished):
    """Devices and nodes of the training are not those of this machine."""
    before = finished.config.read_text()
    cluster = before.replace("num_nodes: 1", "num_nodes: 2").replace("accelerator: cpu", "accelerator: gpu")
    assert cluster != before
    finished.config.write_text(cluster)
    main(["test", str(finished.path), "--trainer.enable_progress_bar=false"])
    finished.config.write_text(before)


def test_a_run_can_be_used_from_another_directory(finished, tmp_path, tiny, reviews, monkeypatch):
    root = tmp_path / "elsewhere"
    (root / "deeper").mkdir(parents=True)
    for name, source in (("backbone", tiny()), ("reviews", reviews)):
        (root / name).symlink_to(source)
    monkeypatch.chdir(root)
    options = ["--data=TextClassification", "--data.source=reviews", "--data.max_length=16", "--trainer.max_epochs=1"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    main(["fit", "--model=LoRA", "--model.backbone=backbone", "--run_dir=run", *options, *quiet])
    monkeypatch.chdir(root / "deeper")
    main(["test", "../run", *quiet])
    (root / "t.txt").write_text("a film\n")
    main(["predict", "../run", "--input", "../t.txt", "--output", "o.jsonl"])
    assert (root / "deeper" / "o.jsonl").is_file()


def test_odd_bytes_in_an_uncommitted_change_do_not_stop_a_run(tmp_path, monkeypatch):
    for command in (["init"], ["config", "user.email", "a@b"], ["config", "user.name", "a"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True, capture_output=True)
    (tmp_path / "file.py").write_text("one")
    subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "commit", "-qm", "first"], check=True)
    (tmp_path / "file.py").write_bytes("zwölf".encode("latin-1"))
    monkeypatch.setattr(peft_lightning, "__file__", str(tmp_path / "__init__.py"))
    state = environment._git_state()
    assert state["dirty"]
    assert "zw" in state["diff"]


def test_all_verbs_agree_on_the_default_run_directory(tmp_path, monkeypatch, tiny, reviews):
    monkeypatch.chdir(tmp_path)
    options = ["--model=LoRA", f"--model.backbone={tiny()}", "--data=TextClassification", f"--data.source={reviews}"]
    options += ["--data.max_length=16", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]
    for verb in ("fit", "validate", "test", "predict"):
        main([verb, *options])
    [predictions] = tmp_path.rglob("predictions.jsonl")
    assert (predictions.parent / "result.json").is_file()


def test_the_default_run_directory_is_deterministic(fit, tmp_path, monkeypatch, capsys, tiny, reviews):
    monkeypatch.chdir(tmp_path)
    command = ["fit", "--model=LoRA", f"--model.backbone={tiny()}", "--data=TextClassification"]
    command += [f"--data.source={reviews}", "--data.max_length=16"]
    command += ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]
    main(command)
    [result] = (tmp_path / "runs").rglob("result.json")
    data, method, digest, seed = result.parent.relative_to(tmp_path / "runs").parts
    assert (data, method, seed) == ("TextClassification", "LoRA", "seed0")
    main([*command, "--data.num_workers=1"])
    assert "is done already" in capsys.readouterr().out
    main([*command, "--model.rank=4"])
    main([*command, "--seed_everything=3"])
    paths = {path.parent.relative_to(tmp_path / "runs").parts for path in (tmp_path / "runs").rglob("result.json")}
    assert len(paths) == 3
    assert (data, method, digest, "seed3") in paths


# What the tiny backbone cannot have by default, or what has no default.
SMALL = {
    "Compacter": ["--model.bottleneck=8"],
    "MAM": ["--model.bottleneck=8", "--model.prompt_length=4"],
    "PTuning": ["--model.prompt_length=4"],
    "PrefixTuning": ["--model.prompt_length=4"],
    "PromptTuning": ["--model.prompt_length=4"],
    "TopLayers": ["--model.k=1"],
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_from_the_command_line(fit, tmp_path, method):
    run = RunDirectory(fit(tmp_path / "run", *SMALL.get(method, []), model=method, epochs=1))
    main(["test", str(run.path), "--trainer.enable_progress_bar=false"])
    result = run.read_result()
    assert result["method"] == method
    assert 0 <= result["metrics"]["test/accuracy"] <= 1
    assert result["parameters"]["trained"] > 0


def test_mixed_precision_works_on_the_cpu_and_keeps_what_is_trained_in_float32(fit, tmp_path):
    run = RunDirectory(fit(tmp_path / "run", "--trainer.precision=bf16-mixed"))
    state = torch.load(run.best_checkpoint, weights_only=True)["state_dict"]
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert run.read_result()["status"] == "done"


def test_other_loggers_and_callbacks_can_be_added(fit, tmp_path):
    run = fit(
        tmp_path / "run",
        "--trainer.callbacks+=LearningRateMonitor",
        "--trainer.logger=CSVLogger",
        f"--trainer.logger.save_dir={tmp_path / 'more'}",
        epochs=1,
    )
    assert list((tmp_path / "more").rglob("metrics.csv"))
    assert RunDirectory(run).metrics.is_file()


def test_configurations_stack_and_the_command_line_wins(tiny, tmp_path, capsys):
    (tmp_path / "base.yaml").write_text("model: {class_path: LoRA, init_args: {rank: 2, alpha: 3.0}}\n")
    (tmp_path / "more.yaml").write_text("model: {init_args: {rank: 4}}\ndata: RottenTomatoes\n")
    configs = [f"--config={tmp_path / name}.yaml" for name in ("base", "more")]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *configs, "--model.alpha=5", "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["class_path"] == "peft_lightning.methods.LoRA"
    assert (printed["model"]["init_args"]["rank"], printed["model"]["init_args"]["alpha"]) == (4, 5.0)


def test_several_runs_are_compared_over_their_seeds(fit, tmp_path, capsys):
    runs = [fit(tmp_path / "lora" / f"seed{s}", f"--seed_everything={s}", model="LoRA", epochs=1) for s in (0, 1)]
    runs.append(fit(tmp_path / "probe", model="LinearProbe", epochs=1))
    for run in runs:
        main(["test", str(run), "--trainer.enable_progress_bar=false"])
    capsys.readouterr()
    main(["summary", *map(str, runs)])
    header, _, lora, probe = capsys.readouterr().out.splitlines()
    assert header.startswith("| run | test | validation | seeds | trained |")
    scores = [RunDirectory(run).read_result()["metrics"]["test/accuracy"] for run in runs[:2]]
    error = abs(scores[0] - scores[1]) / 2
    assert lora.startswith(f"| lora | {sum(scores) / 2:.4f} ± {error:.4f} |")
    assert "| 2 |" in lora
    assert probe.startswith("| probe | ")
    assert "±" not in probe
    main(["summary", str(runs[0]), str(runs[0].parent / ".." / "lora" / "seed0")])
    assert "| 1 |" in capsys.readouterr().out.splitlines()[2]


def test_help_in_a_process_of_its_own():
    command = [sys.executable, "-m", "peft_lightning", "fit", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--run_dir" in done.stdout


def test_help_lists_the_verbs_on_a_run(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 0
    assert "peft-lightning predict RUN --input FILE --output FILE" in capsys.readouterr().out
