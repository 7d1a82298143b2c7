"""Bad input gets one sentence, before any training, a status that is not 0, and nothing is overwritten."""

import os
import shutil

import pytest
import torch
import yaml
from small_benchmarks import SMALL
from small_files import write_reviews

from peft_lightning.cli import main
from peft_lightning.runs import RunDirectory
from peft_lightning.storage.generations import manifest_path, previous_path
from peft_lightning.testing import save_tiny_backbone


@pytest.fixture
def command(tiny, reviews, tmp_path):
    """`command(**{"data.source": path})` is a fit command with some options replaced or, with None, left out."""

    def arguments(verb="fit", **changes):
        options = {
            "model": "Houlsby",
            "model.backbone": tiny(),
            "data": "TextClassification",
            "data.source": reviews,
            "data.max_length": 16,
            "run_dir": tmp_path / "run",
            "trainer.max_epochs": 1,
            "trainer.accelerator": "cpu",
            "trainer.enable_progress_bar": "false",
        } | changes
        return [verb, *(f"--{name}={value}" for name, value in options.items() if value is not None)]

    return arguments


def nothing_was_trained(run):
    return not (run / "checkpoints").exists() and RunDirectory(run).read_result().get("status") != "done"


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"model": "Holsby"}, 2, ["no method 'Holsby'", "Houlsby", "LoRA", "dotted path"]),
        ({"model": "my.Method"}, 2, ["no method 'my.Method'", "Houlsby"]),
        ({"data": "RottenPotatoes"}, 2, ["no DataModule 'RottenPotatoes'", "RottenTomatoes"]),
        ({"model.rank": 8}, 2, ["Houlsby has no option 'rank'", "bottleneck"]),
        ({"data.rows": 8}, 2, ["TextClassification has no option 'rows'", "text_column"]),
        ({"model.bottleneck": "many"}, 2, ["--model.bottleneck of Houlsby", "expected int", "'many'"]),
        ({"model.schedule": "wild"}, 2, ["--model.schedule", "'linear', 'cosine', 'constant'", "'wild'"]),
        ({"trainer.max_epochs": "few"}, 2, ["--trainer.max_epochs", "expected int, null", "'few'"]),
        ({"trainer.precision": 17}, 2, ["--trainer.precision", "bf16-mixed", "'17'"]),
        ({"data.labels": "bad,good"}, 2, ["--data.labels", "Sequence[str]", "'bad,good'"]),
        ({"model": "torch.nn.Linear"}, 2, ["torch.nn.Linear is no method", "Houlsby"]),
        ({"model": "AdaptationMethod"}, 1, ["AdaptationMethod is no method"]),
        ({"data.backbone": "other"}, 1, ["--data.backbone", "--model.backbone"]),
        ({"data.seed": 3}, 1, ["--data.seed", "--seed_everything"]),
        ({"seed_everything": -3}, 1, ["seed_everything is -3"]),
        ({"checkpoint_every_n_steps": 0}, 1, ["checkpoint_every_n_steps is 0"]),
        ({"model.betas": "[0.9]"}, 1, ["betas is [0.9]"]),
        ({"trainer.accelerator": "gpu"}, 1, ["--trainer.*", "gpu"]),
        ({"trainer.strategy": "nope"}, 1, ["--trainer.*", "nope"]),
        ({"trainer.max_epochs": 0}, 1, ["--trainer.max_epochs is 0"]),
        ({"trainer.val_check_interval": 50}, 1, ["--trainer.val_check_interval", "(50)", "training batches (3)"]),
        ({"trainer.limit_train_batches": 0}, 1, ["--trainer.limit_train_batches is 0"]),
        ({"ckpt_path": "none.ckpt"}, 1, ["Checkpoint none.ckpt does not exist"]),
        ({"colour": "blue"}, 2, ["--colour"]),
        ({"config": "none.yaml"}, 2, ["--config", "none.yaml", "does not exist"]),
        ({"data.source": None}, 2, ["TextClassification", "are required: source"]),
        ({"model.backbone": "no/such-model"}, 1, ["'no/such-model'", "Hub id", "local directory"]),
        ({"model.backbone": "./nowhere"}, 1, ["'./nowhere'", "no such directory"]),
        ({"model.backbone": "embedded:giant"}, 1, ["'embedded:giant'", "embedded:minilm-l6"]),
        ({"model": "LoRA", "model.targets": "[query,quay]"}, 1, ["no site 'quay'", "query, key, value"]),
        ({"model": "LoRA", "model.targets": "[]"}, 1, ["targets is []", "list of linear maps"]),
        ({"model": "LoRA", "model.targets": "[ffn_norm]"}, 1, ["'ffn_norm'", "no linear map"]),
        ({"model": "LoRA", "model.rank": 33}, 1, ["rank is 33", "between 1 and 32"]),
        ({"model": "PTuningV2", "model.prompt_length": 60}, 1, ["max_length is 16", "positions for 4", "60 virtual"]),
        (
            {"model": "PromptTuning", "model.prompt_length": 64},
            1,
            ["64 virtual tokens leave nothing of the 64 positions", "smaller --model.prompt_length"],
        ),
        ({"model": "PTuning", "model.template": "[3,3,3]"}, 1, ["template is [3, 3, 3]", "sum 20, the prompt_length"]),
        ({"model.bottleneck": 0}, 1, ["bottleneck is 0"]),
        ({"data.max_length": 65}, 1, ["max_length is 65", "positions for 64"]),
        ({"data.source": "none.csv"}, 1, ["none.csv does not exist"]),
        ({"data.text_column": "body"}, 1, ["no column 'body'", "text, label", "--data.text_column"]),
        ({"data.label_column": "stars"}, 1, ["no column 'stars'", "text, label", "--data.label_column"]),
        ({"data.labels": "[bad,fine]"}, 1, ["row 2", "column 'label'", "'good'", "['bad', 'fine']"]),
        ({"trainer.max_epochs": None}, 1, ["--trainer.max_epochs or --trainer.max_steps"]),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_a_wrong_option_is_named_with_what_would_be_right(refused, command, tmp_path, changes, status, words):
    sentence = refused(command(**changes), status)
    assert [word for word in words if word not in sentence] == []
    assert nothing_was_trained(tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["is empty"]),
        ("text,label\n", ["is empty"]),
        ("text,label\na film,good\n,bad\n", ["row 2", "column 'text' is empty"]),
        ("text,label\na film,good\na,b,c\n", ["row 2 has 3 fields", "should have 2"]),
    ],
)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_wrong_file_is_named_before_training(refused, command, tmp_path, content, words, split):
    for name in ("train", "validation"):
        write_reviews(tmp_path / f"{name}.csv", 16)
    (tmp_path / f"{split}.csv").write_text(content, encoding="utf-8")
    sentence = refused(command(**{"data.source": tmp_path}))
    assert [word for word in (split, *words) if word not in sentence] == []
    assert nothing_was_trained(tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"model: Houlsby\n\tdata: x\n", ["line 2", "not YAML"]),
        (b"", ["holds no options"]),
        ("model: Häuser".encode("latin-1"), ["not UTF-8"]),
        (b"class_path: LoRA\ninit_args: {rank: 4}\n", ["--model", "one part of a configuration"]),
    ],
)
def test_a_wrong_configuration_file_is_named(refused, tmp_path, content, words):
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    sentence = refused(["fit", "--config", path])
    assert [word for word in (str(path), *words) if word not in sentence] == []


@pytest.mark.parametrize("how", ["stacked", "part"])
def test_options_left_over_from_another_class_are_not_dropped(refused, tmp_path, how):
    part = {"class_path": "Houlsby", "init_args": {"bottleneck": 8, "lr": 1e-3}}
    (tmp_path / "houlsby.yaml").write_text(yaml.safe_dump(part))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"model": part if how == "stacked" else "houlsby.yaml"}))
    sentence = refused(["fit", f"--config={tmp_path / 'run.yaml'}", "--model=LoRA", "--data=RottenTomatoes"])
    for word in ("run.yaml gives bottleneck", "LoRA does not have", "choose Houlsby"):
        assert word in sentence


def test_a_module_of_the_user_that_fails_to_import_says_why(refused, command, tmp_path, monkeypatch):
    (tmp_path / "broken_method.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    sentence = refused(command(model="broken_method.Mine"), status=2)
    assert "broken_method.Mine cannot be imported: No module named 'no_such_package'" in sentence


def test_an_unknown_verb_lists_all(refused):
    assert "no verb 'nonsense'; the verbs are fit, validate, test, predict, ablate, summary" in refused(["nonsense"])


def test_a_split_that_does_not_exist(refused, fit, tmp_path):
    write_reviews(tmp_path / "train.csv", 40)
    run = fit(tmp_path / "run", f"--data.source={tmp_path}", epochs=1)
    assert "has no test split; it has train, validation" in refused(["test", run])


def test_a_run_directory_with_another_configuration_is_left_as_it_is(refused, fit, command, tmp_path):
    run = fit(tmp_path / "run", "--model.bottleneck=8", epochs=1)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    sentence = refused(
        command(**{"model.bottleneck": 4, "model.lr": "1e-2", "data.batch_size": 8, "seed_everything": 5})
    )
    assert "model.init_args.bottleneck was 8 and is 4" in sentence
    assert "seed_everything was 0 and is 5" in sentence
    assert "--run_dir" in sentence
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_start_that_failed_does_not_claim_the_directory(refused, fit, command, tmp_path):
    """The corrected command may use it: nothing was trained with the wrong options."""
    assert "positions for 64" in refused(command(**{"data.max_length": 100}))
    fit(tmp_path / "run", epochs=1)
    assert RunDirectory(tmp_path / "run").is_done


def test_files_of_others_are_not_overwritten(refused, command, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.csv").write_text("precious")
    assert "holds metrics.csv but no config.yaml" in refused(command())
    assert (run / "metrics.csv").read_text() == "precious"
    assert [path.name for path in run.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("result.json", '{"status": "do'), ("result.json", "[1]"), ("config.yaml", ""), ("config.yaml", "a:\n\tb")],
)
def test_a_damaged_file_of_a_run_is_named(refused, fit, tmp_path, name, content):
    run = fit(tmp_path / "run", epochs=1)
    (run / name).write_text(content)
    for verb in ("test", "summary") if name == "result.json" else ("test",):
        assert str(run / name) in refused([verb, run])
    with pytest.raises(SystemExit) as stop:
        fit(run, epochs=1)
    assert stop.value.code == 1


def test_a_damaged_checkpoint_is_named_before_anything_is_computed(refused, fit, tmp_path):
    run = RunDirectory(fit(tmp_path / "run", epochs=1))
    run.best_checkpoint.write_bytes(run.best_checkpoint.read_bytes()[:700])
    assert f"Checkpoint {run.best_checkpoint} cannot be read" in refused(["test", run.path])
    for generation in (run.last_checkpoint, previous_path(run.last_checkpoint)):
        generation.write_bytes(b"")
    run.update_result({"status": "failed"})
    with pytest.raises(SystemExit) as stop:
        fit(run.path, epochs=1)
    assert stop.value.code == 1


def test_weights_alone_cannot_be_gone_on_from(refused, fit, command, tmp_path):
    best = RunDirectory(fit(tmp_path / "other", epochs=1)).best_checkpoint
    assert "holds weights only" in refused(command(ckpt_path=best))


def test_data_that_has_changed_since_training_is_refused(refused, fit, tmp_path):
    """Rows of the training split would otherwise move into the test split."""
    path = write_reviews(tmp_path / "all.csv", 60)
    run = fit(tmp_path / "run", f"--data.source={path}", epochs=1)
    write_reviews(path, 64)
    before = RunDirectory(run).read_result()
    sentence = refused(["test", run])
    assert f"Data '{path}' (train) has changed since the run" in sentence
    assert RunDirectory(run).read_result() == before


def test_a_checkpoint_of_another_method(refused, fit, tmp_path):
    houlsby, lora = fit(tmp_path / "houlsby", epochs=1), fit(tmp_path / "lora", model="LoRA", epochs=1)
    checkpoint = RunDirectory(houlsby).best_checkpoint
    before = RunDirectory(lora).read_result()
    assert "trained by Houlsby, not by LoRA" in refused(["test", lora, "--ckpt_path", checkpoint])
    assert RunDirectory(lora).read_result() == before


def test_a_checkpoint_of_other_sizes(refused, fit, tmp_path):
    small, large = (fit(tmp_path / str(size), f"--model.bottleneck={size}", epochs=1) for size in (4, 8))
    sentence = refused(["test", large, "--ckpt_path", RunDirectory(small).best_checkpoint])
    assert "down.weight is [4, 32] there and [8, 32] here" in sentence


def test_going_on_from_a_checkpoint_of_another_backbone(refused, fit, tmp_path):
    backbone = save_tiny_backbone("bert", tmp_path / "backbone")
    run = RunDirectory(fit(tmp_path / "run", f"--model.backbone={backbone}", epochs=1))
    run.update_result({"status": "failed"})
    shutil.rmtree(backbone)
    save_tiny_backbone("bert", backbone, seed=1)
    with pytest.raises(SystemExit) as stop:
        fit(run.path, f"--model.backbone={backbone}", epochs=1)
    assert stop.value.code == 1


@pytest.mark.parametrize("verb", ["test", "validate", "summary"])
def test_a_directory_that_is_no_run(refused, tmp_path, verb):
    assert "is no run directory: it holds no config.yaml" in refused([verb, tmp_path])


def test_a_run_that_was_never_trained(refused, fit, tmp_path):
    run = RunDirectory(fit(tmp_path / "run", epochs=1))
    run.best_checkpoint.unlink()
    assert "holds no trained model" in refused(["test", run.path])
    (tmp_path / "t.txt").write_text("a film\n", encoding="utf-8")
    sentence = refused(["predict", run.path, "--input", tmp_path / "t.txt", "--output", tmp_path / "o.jsonl"])
    assert "run fit first" in sentence
    assert not (tmp_path / "o.jsonl").exists()


def test_a_checkpoint_that_does_not_exist(refused, fit, tmp_path):
    run = fit(tmp_path / "run", epochs=1)
    assert "Checkpoint none.ckpt does not exist" in refused(["test", run, "--ckpt_path=none.ckpt"])


def test_a_checkpoint_of_another_program(refused, fit, tmp_path):
    run = RunDirectory(fit(tmp_path / "run", epochs=1))
    (tmp_path / "t.txt").write_text("a film\n", encoding="utf-8")
    torch.save({"state_dict": {}}, run.best_checkpoint)
    manifest_path(run.best_checkpoint).unlink()
    sentence = refused(["predict", run.path, "--input", tmp_path / "t.txt", "--output", tmp_path / "o.jsonl"])
    assert "was not written by peft_lightning" in sentence


def unwritable_directory(tmp_path):
    """A directory that cannot be written, also by root, for whom permissions do not count."""
    if os.geteuid() == 0:
        (tmp_path / "file").write_text("")
        return tmp_path / "file"
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    return closed


def test_no_permission_to_write_the_run(refused, command, tmp_path):
    sentence = refused(command(run_dir=unwritable_directory(tmp_path) / "run"))
    assert "cannot be written" in sentence
    assert "--run_dir" in sentence


def test_no_permission_to_write_predictions(refused, fit, tmp_path):
    run = fit(tmp_path / "run", epochs=1)
    (tmp_path / "t.txt").write_text("a film\n", encoding="utf-8")
    target = unwritable_directory(tmp_path) / "out" / "o.jsonl"
    assert "cannot be written" in refused(["predict", run, "--input", tmp_path / "t.txt", "--output", target])


def test_predictions_of_the_test_split_are_not_overwritten_by_accident(refused, fit, tmp_path):
    run = RunDirectory(fit(tmp_path / "run", epochs=1))
    run.predictions.write_text("precious")
    assert "exists; move it away first" in refused(["predict", run.path])
    assert run.predictions.read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--batch_size=0"], "--batch_size is 0"), (["--device=nope"], "--device 'nope' cannot be used")],
)
def test_wrong_options_of_predict(refused, fit, tmp_path, options, words):
    run = fit(tmp_path / "run", epochs=1)
    (tmp_path / "t.txt").write_text("a film\n", encoding="utf-8")
    assert words in refused(["predict", run, "--input", tmp_path / "t.txt", "--output", tmp_path / "o.jsonl", *options])


def test_predicting_into_a_directory(refused, fit, tmp_path):
    run = fit(tmp_path / "run", epochs=1)
    (tmp_path / "t.txt").write_text("a film\n", encoding="utf-8")
    sentence = refused(["predict", run, "--input", tmp_path / "t.txt", "--output", tmp_path, "--overwrite"])
    assert "is a directory" in sentence


def test_single_texts_for_a_model_of_pairs(refused, fit, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("one,two,label\n" + "a film,the plot,good\nno heart,a story,bad\n" * 20, encoding="utf-8")
    columns = ["--data.text_column=one", "--data.text_pair_column=two"]
    run = fit(tmp_path / "run", f"--data.source={path}", *columns, epochs=1)
    (tmp_path / "t.txt").write_text("a film\n", encoding="utf-8")
    output = tmp_path / "o.jsonl"
    assert "trained on pairs of texts" in refused(["predict", run, "--input", tmp_path / "t.txt", "--output", output])
    main(["predict", str(run), "--input", str(path), "--output", str(output)])
    assert len(output.read_text().splitlines()) == 40


def test_predictions_are_not_overwritten_by_accident(refused, fit, tmp_path):
    run = fit(tmp_path / "run", epochs=1)
    source, target = tmp_path / "t.txt", tmp_path / "o.jsonl"
    source.write_text("a film\n", encoding="utf-8")
    target.write_text("precious", encoding="utf-8")
    assert "--overwrite" in refused(["predict", run, "--input", source, "--output", target])
    assert target.read_text() == "precious"


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("a film\n\ngood\n", [], ["row 2", "is empty"]),
        ("", [], ["is empty"]),
    ],
)
def test_texts_that_cannot_be_predicted(refused, fit, tmp_path, content, options, words):
    run = fit(tmp_path / "run", epochs=1)
    source, target = tmp_path / "t.txt", tmp_path / "o.jsonl"
    source.write_text(content, encoding="utf-8")
    sentence = refused(["predict", run, "--input", source, "--output", target, *options])
    assert [word for word in words if word not in sentence] == []
    assert list(tmp_path.glob("*o.jsonl*")) == []


def test_a_column_of_texts_that_is_not_there(refused, fit, tmp_path):
    run = fit(tmp_path / "run", epochs=1)
    source = tmp_path / "t.csv"
    source.write_text("body\na film\n", encoding="utf-8")
    sentence = refused(["predict", run, "--input", source, "--output", tmp_path / "o.jsonl"])
    assert "no column 'text'; its columns are body; choose one with --text_column" in sentence


@pytest.mark.parametrize(("name", "data"), [("copa", "COPA"), ("super_glue-wic", "SuperGLUE")])
def test_examples_that_are_no_texts_alone_are_neither_read_nor_recommended(name, data, refused, fit, tmp_path, capsys):
    small = SMALL[name]
    run = fit(tmp_path / "run", f"--data.source={small.write(tmp_path)}", *small.options, data=data, epochs=1)
    assert "--input" not in capsys.readouterr().out
    (tmp_path / "t.txt").write_text("a film\n", encoding="utf-8")
    sentence = refused(["predict", run, "--input", tmp_path / "t.txt", "--output", tmp_path / "o.jsonl"])
    assert f"trained on {data}, whose examples are no single texts" in sentence
