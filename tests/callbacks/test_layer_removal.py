"""Layer removal from the command line: table, heatmaps, and what they are of."""

import math
import shutil
import subprocess
import sys

import pytest
import torch
from lightning.pytorch import Trainer
from small_files import rows_of
from small_squad import write_squad
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from peft_lightning import load_run
from peft_lightning.callbacks import LayerRemoval
from peft_lightning.cli import main
from peft_lightning.data import SQuAD, TextClassification
from peft_lightning.runs import RunDirectory, removal_heatmap, removal_table
from peft_lightning.storage.generations import manifest_path
from peft_lightning.testing import save_tiny_backbone

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]


@pytest.fixture
def ablate():
    """`ablate(run, *options)` runs the verb and returns the table."""

    def command(run, *options, name="layer_removal.csv"):
        main(["ablate", str(run), *options, *QUIET])
        return rows_of(run / name)

    return command


def spans_of(rows, metric):
    return {(int(r["first"]), int(r["last"])): r for r in rows if r["metric"] == metric and r["first"]}


def accuracy(method, data, split):
    right = []
    for batch in data.val_dataloader()[0] if split == "validation" else data.test_dataloader()[0]:
        with torch.no_grad():
            right += (method(batch).logits.argmax(-1) == batch["labels"]).tolist()
    return sum(right) / len(right)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_every_span_is_evaluated_and_drawn(fit, ablate, tmp_path, tiny, reviews, split, capsys):
    run = fit(tmp_path / "run")
    before = {path: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    stem = "layer_removal" if split == "validation" else "layer_removal_test"
    rows = ablate(run, f"--split={split}", "--max_rows=20", name=f"{stem}.csv")
    printed = capsys.readouterr().out
    spans = spans_of(rows, "accuracy")
    assert sorted(spans) == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    assert {row["metric"] for row in rows} == {"loss", "accuracy", "f1", "matthews"}
    data = TextClassification(source=str(reviews), backbone=str(tiny()), batch_size=8, max_length=16)
    data.setup("validate" if split == "validation" else "test")
    method = load_run(run)
    (intact,) = (float(r["value"]) for r in rows if r["metric"] == "accuracy" and not r["first"])
    assert intact == pytest.approx(accuracy(method, data, split))
    for span, row in spans.items():
        with method.layers_removed(*span):
            value = accuracy(method, data, split)
        assert float(row["value"]) == pytest.approx(value)
        assert float(row["absolute_change"]) == pytest.approx(value - intact, abs=1e-6)
        assert float(row["relative_change"]) == pytest.approx((value - intact) / intact, abs=1e-6)
    assert len({row["value"] for row in spans_of(rows, "loss").values()}) == 6
    assert (run / f"{stem}_accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert (run / f"{stem}_accuracy.pdf").read_bytes().startswith(b"%PDF")
    log = EventAccumulator(str(run / "tensorboard"))
    log.Reload()
    assert log.Tags()["images"] == [f"{stem}/accuracy"]
    assert f"accuracy: {intact:.4f} intact" in printed
    assert {path: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before


def test_a_metric_is_drawn_later_without_evaluating_again(fit, ablate, tmp_path):
    run = fit(tmp_path / "run", epochs=1)
    ablate(run)
    (run / "checkpoints" / "best.ckpt").unlink()
    ablate_again = ["ablate", str(run), "--metric=f1", "--metric=loss", "--change=absolute"]
    main(ablate_again)
    assert (run / "layer_removal_f1_absolute.png").is_file()
    assert (run / "layer_removal_loss_absolute.pdf").is_file()
    log = EventAccumulator(str(run / "tensorboard"))
    log.Reload()
    assert {"layer_removal/accuracy", "layer_removal/f1_absolute"} <= set(log.Tags()["images"])


def test_a_heatmap_is_drawn_once_with_the_limits_that_are_given(fit, ablate, tmp_path, monkeypatch):
    run, drawn = fit(tmp_path / "run", epochs=1), []
    monkeypatch.setattr(removal_heatmap, "save_figure", lambda figure, stem: drawn.append(figure))
    ablate(run, "--limits", "-35", "0")
    main(["ablate", str(run), "--limits", "-20", "5"])
    main(["ablate", str(run), "--output", str(tmp_path / "mean"), "--limits", "-10", "0"])
    assert [figure.axes[0].images[0].get_clim() for figure in drawn] == [(-35, 0), (-20, 5), (-10, 0)]


def test_layer_norms_go_too_if_asked_for(fit, ablate, tmp_path):
    run = fit(tmp_path / "run")
    with_norms, without = ablate(run), ablate(run, "--layer_norms", name="layer_removal_layer_norms.csv")
    kept, removed = (spans_of(rows, "loss")[(0, 2)]["value"] for rows in (with_norms, without))
    assert kept != removed


def test_it_does_nothing_within_fit(fit, tmp_path):
    run = fit(tmp_path / "run", "--trainer.callbacks+=LayerRemoval", epochs=1)
    assert not list(run.glob("layer_removal*"))
    main(["validate", str(run), *QUIET])
    assert (run / "layer_removal.csv").is_file()


def test_several_runs_are_averaged(fit, tmp_path, capsys):
    runs = [fit(tmp_path / f"run{seed}", f"--seed_everything={seed}", epochs=1) for seed in range(2)]
    main(["ablate", *map(str, runs), "--output", str(tmp_path / "mean"), *QUIET])
    first, second = (spans_of(rows_of(run / "layer_removal.csv"), "accuracy") for run in runs)
    mean = spans_of(rows_of(tmp_path / "mean" / "layer_removal.csv"), "accuracy")
    for span, row in mean.items():
        changes = [float(table[span]["relative_change"]) for table in (first, second)]
        assert float(row["relative_change"]) == pytest.approx(sum(changes) / 2)
        assert float(row["relative_error"]) == pytest.approx(abs(changes[0] - changes[1]) / 2)
        assert row["runs"] == "2"
    assert (tmp_path / "mean" / "layer_removal_accuracy.png").is_file()


def test_spans_of_an_encoder_decoder_are_evaluated_one_by_one_and_it_says_so(fit, ablate, tmp_path):
    run = fit(tmp_path / "run", model_type="t5", epochs=1)
    with pytest.warns(UserWarning, match="10 spans are evaluated one by one, because of this t5 model its decoder"):
        rows = ablate(run)
    assert len(spans_of(rows, "accuracy")) == 10
    assert len({row["value"] for row in spans_of(rows, "loss").values()}) == 10


def test_two_processes_count_what_one_does(fit, ablate, tmp_path):
    run = fit(tmp_path / "run")
    command = [sys.executable, "-m", "peft_lightning", "ablate", str(run), *QUIET]
    subprocess.run([*command, "--trainer.devices=2", "--trainer.strategy=ddp"], check=True, timeout=300)
    on_two = rows_of(run / "layer_removal.csv")
    for found, wanted in zip(on_two, ablate(run, "--overwrite"), strict=True):
        assert found.keys() == wanted.keys()
        assert float(found["value"]) == pytest.approx(float(wanted["value"]), abs=1e-6)


def test_questions_whose_windows_are_computed_in_parts(tmp_path, tiny, fit):
    """The task asks the model several times a batch; each span answers all of them."""
    source = write_squad(tmp_path)
    options = [f"--data.source={source}", "--data.max_length=24", "--data.doc_stride=6"]
    run = fit(tmp_path / "run", *options, data="SQuAD", epochs=1)
    data = SQuAD(source=source, backbone=str(tiny()), batch_size=3, max_length=24, doc_stride=6)
    data.setup("validate")
    method = load_run(run)
    method.task.windows_at_once = 4
    trainer = Trainer(
        accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_progress_bar=False,
        callbacks=[LayerRemoval(max_rows=8)],
    )  # fmt: skip
    trainer.validate(method, data, verbose=False)
    rows = rows_of(tmp_path / "layer_removal.csv")
    assert {row["metric"] for row in rows} == {"loss", "exact_match", "f1"}
    for span, row in spans_of(rows, "loss").items():
        plain = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
        with method.layers_removed(*span):
            (metrics,) = plain.validate(method, data, verbose=False)
        assert float(row["value"]) == pytest.approx(metrics["val/loss"], abs=1e-5)
        assert float(spans_of(rows, "f1")[span]["value"]) == pytest.approx(metrics["val/f1"], abs=1e-5)


def test_a_model_with_one_layer_has_one_span(fit, ablate, tmp_path):
    backbone = save_tiny_backbone("bert", tmp_path / "bert", num_hidden_layers=1)
    rows = ablate(fit(tmp_path / "run", f"--model.backbone={backbone}", epochs=1))
    assert list(spans_of(rows, "accuracy")) == [(0, 0)]


def test_a_method_that_adapts_no_layer_is_told_and_nothing_changes(fit, ablate, tmp_path):
    run = fit(tmp_path / "run", "--model.prompt_length=4", model="PromptTuning", epochs=1)
    with pytest.warns(UserWarning, match="PromptTuning adapts nothing inside the layers"):
        rows = ablate(run)
    assert {float(row["absolute_change"]) for row in rows} == {0.0}


def test_a_metric_of_zero_has_no_relative_change_and_its_absolute_one_is_drawn(tmp_path, caplog):
    rows = removal_table.rows_of({"matthews": 0.0}, {(0, 0): {"matthews": 0.5}})
    assert math.isnan(rows[1].relative_change)
    removal_table.write_rows(tmp_path / "table.csv", rows)
    assert repr(removal_table.read_rows(tmp_path / "table.csv")) == repr(rows)
    drawn = tmp_path / "table.csv", rows, ["matthews"], "relative"
    removal_heatmap.draw_heatmaps(*drawn, "")
    files = removal_heatmap.heatmap_files(*drawn)
    assert all(path.is_file() for path in files)
    assert [path.name for path in files] == ["table_matthews_absolute.png", "table_matthews_absolute.pdf"]
    assert "matthews is 0 for the intact model" in caplog.text


def test_what_falls_is_negative_even_from_below_zero():
    rows = removal_table.rows_of({"matthews": -0.1}, {(0, 0): {"matthews": -0.2}})
    assert rows[1].relative_change == pytest.approx(-1.0)


@pytest.mark.parametrize(("layers", "numbers"), [(3, 6), (13, 0)])
def test_the_heatmap_has_the_form_of_the_paper(layers, numbers, tmp_path, monkeypatch):
    """x: last removed layer, y: first removed layer, counted downwards; nothing below the outlined diagonal."""
    spans = {
        (first, last): {"accuracy": 0.8 - 0.01 * (last - first) - 0.001 * first}
        for first in range(layers)
        for last in range(first, layers)
    }
    rows, drawn = removal_table.rows_of({"accuracy": 0.8}, spans), []
    monkeypatch.setattr(removal_heatmap, "save_figure", lambda figure, stem: drawn.append(figure) or [])
    removal_heatmap.draw_heatmaps(tmp_path / "t.csv", rows, ["accuracy"], "relative", "LoRA", limits=(-50.0, 0.0))
    axes, bar = drawn[0].axes
    image, grid = axes.images[0], axes.images[0].get_array()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("last removed layer", "first removed layer")
    assert bar.get_ylabel() == "relative change of accuracy (%)"
    assert image.get_clim() == (-50.0, 0.0)
    assert image.origin == "upper"
    assert image.cmap.name == "viridis"
    assert grid[0, layers - 1] == pytest.approx(100 * -0.01 * (layers - 1) / 0.8)
    assert all(grid.mask[last, first] == (last > first) for first in range(layers) for last in range(layers))
    assert len(axes.patches) == layers
    assert len(axes.texts) == numbers
    if numbers:
        texts = {text.get_position(): text.get_text() for text in axes.texts}
        assert texts[0, 0] == "0.0"
        assert texts[2, 0] == "-2.5"


def test_bad_input(fit, refused, tmp_path, reviews):
    sentence = refused(["ablate", tmp_path / "nothing"])
    assert "no run directory" in sentence
    run = fit(tmp_path / "run", epochs=1)
    sentence = refused(["ablate", run, "--metric=bleu", *QUIET])
    assert "no metric 'bleu'" in sentence
    assert "loss, accuracy, f1, matthews" in sentence
    assert "max_rows is 0" in refused(["ablate", run, "--max_rows=0", *QUIET])
    assert "give --output" in refused(["ablate", run, run])
    main(["ablate", str(run), *QUIET])
    assert "no metric 'bleu'" in refused(["ablate", run, "--metric=bleu"])
    assert "--overwrite" in refused(["ablate", run, "--data.batch_size=4"])
    table = (run / "layer_removal.csv").read_text()
    assert "layer_removal.csv exists" in refused(["validate", run, "--trainer.callbacks+=LayerRemoval", *QUIET])
    assert (run / "layer_removal.csv").read_text() == table
    (run / "layer_removal.csv").write_text("first,last\n0,0\n")
    assert "cannot be read" in refused(["ablate", run])


def test_a_run_that_was_not_trained_or_is_of_another_method(fit, refused, tmp_path):
    run, other = RunDirectory(fit(tmp_path / "run", epochs=1)), RunDirectory(fit(tmp_path / "other", model="LoRA"))
    for path in (other.best_checkpoint, manifest_path(other.best_checkpoint)):
        shutil.copy(path, run.checkpoints)
    assert "LoRA" in refused(["ablate", run.path, *QUIET])
    run.best_checkpoint.unlink()
    assert "holds no trained model" in refused(["ablate", run.path, *QUIET])


def test_an_empty_split_is_refused(fit, refused, tmp_path, reviews):
    run = fit(tmp_path / "run", epochs=1)
    empty = tmp_path / "empty"
    empty.mkdir()
    for split in ("train", "validation", "test"):
        text = "text,label\n" if split == "validation" else (reviews / f"{split}.csv").read_text()
        (empty / f"{split}.csv").write_text(text)
    assert "validation.csv is empty" in refused(["ablate", run, f"--data.source={empty}", *QUIET])


def test_a_table_of_other_weights_or_fewer_rows_is_not_taken_for_that_of_the_run(fit, ablate, refused, tmp_path):
    run = fit(tmp_path / "run", epochs=1)
    assert "Nothing was evaluated" in refused(["ablate", run, "--trainer.limit_val_batches=0", *QUIET])
    one_batch = ablate(run, "--trainer.limit_val_batches=1")
    assert "other weights, data or limits" in refused(["ablate", run])
    assert ablate(run, "--overwrite") != one_batch
    assert "Nothing was evaluated" in refused(["ablate", run, "--overwrite", "--trainer.limit_val_batches=0", *QUIET])
    main(["ablate", str(run)])
    best = RunDirectory(run).best_checkpoint
    manifest = manifest_path(best).read_text()
    manifest_path(best).write_text(manifest.replace(manifest[12:20], "0" * 8))
    assert "other weights, data or limits" in refused(["ablate", run])


def test_only_runs_that_differ_in_their_seeds_are_averaged(fit, refused, tmp_path):
    run, other = fit(tmp_path / "run", epochs=1), fit(tmp_path / "other", "--model.lr=1e-3", epochs=1)
    assert "A run is given twice" in refused(["ablate", run, f"{run}/", "--output", tmp_path / "mean", *QUIET])
    sentence = refused(["ablate", run, other, "--output", tmp_path / "mean", *QUIET])
    assert "cannot be averaged: model.init_args.lr is" in sentence
    assert not list(run.glob("layer_removal*"))
    assert not (tmp_path / "mean").exists()
