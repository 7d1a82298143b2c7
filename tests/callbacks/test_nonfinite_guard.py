"""Steps that are not finite are not taken, and are told of; each policy is tested with what really happens."""

import ast
import copy
import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from small_files import rows_of
from torch import nn
from torch.utils.data import DataLoader

from peft_lightning.backbone import load_tokenizer
from peft_lightning.callbacks import NonFiniteGuard
from peft_lightning.errors import NonFiniteError, UserError
from peft_lightning.methods import AdaLoRA, Houlsby
from peft_lightning.runs import RunDirectory

SKIP = ("--trainer.callbacks+=NonFiniteGuard", "--trainer.callbacks.policy=skip")
REDUCE = ("--trainer.callbacks+=NonFiniteGuard", "--trainer.callbacks.policy=reduce")


class Watched:
    """`fit` whose batch number `at` is not finite, with copies of weights and optimizer from before each batch."""

    def __init__(self, monkeypatch, at, what="loss", method=Houlsby):
        self.before, self.moments, self.batch, self.spoiled = {}, {}, None, None
        original, watched, number = method.training_step, self, iter(range(10**6))

        def training_step(self, batch, batch_idx):
            now = next(number)
            watched.before[now] = {name: p.detach().clone() for name, p in self.trained_state().items()}
            watched.moments[now] = copy.deepcopy(self.trainer.optimizers[0].state_dict()["state"])
            if now in at:
                watched.batch = batch["input_ids"]
            if now in at and what == "weight":
                word = self.backbone.model.get_input_embeddings().weight
                with torch.no_grad():
                    word[batch["input_ids"][0, 1]] = math.nan
            if now in at and what == "gradient":
                name, parameter = [pair for pair in self.named_parameters() if pair[1].requires_grad][5]
                watched.spoiled = name.rpartition(".")[0]
                hook = parameter.register_hook(lambda gradient: (hook.remove(), gradient * math.inf)[1])
            loss = original(self, batch, batch_idx)
            return loss * math.nan if now in at and what == "loss" else loss

        monkeypatch.setattr(method, "training_step", training_step)


def saved(path):
    return torch.load(path, weights_only=True)


def is_finite(path):
    return all(tensor.isfinite().all() for tensor in saved(path)["state_dict"].values())


@pytest.mark.parametrize("what", ["loss", "weight", "gradient"])
def test_a_step_that_is_not_finite_ends_the_run_and_is_not_taken(
    fit, tmp_path, monkeypatch, capsys, tiny, reviews, what
):
    """Batch 7 is the second of step 3, counted from 0; gradients are clipped, which would hide an infinite norm."""
    watched = Watched(monkeypatch, {7}, what)
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path / "run", "--trainer.accumulate_grad_batches=2", "--checkpoint_every_n_steps=1")
    assert stop.value.code == 3
    run = RunDirectory(tmp_path / "run")
    assert run.read_result()["status"] == "nonfinite"
    [step] = run.read_result()["nonfinite_steps"]
    assert step["step"] == 3
    # Warm-up over the first of 12 steps, then decay.
    assert step["learning_rates"] == pytest.approx([1e-2 * (1 - 2 / 11)])
    assert step["loss_is_finite"] == (what == "gradient")
    assert (step["broken_weight"] is not None) == (what == "weight")
    if what == "gradient":
        assert step["module"] == watched.spoiled
        assert step["modules"][0] == 1
    with (reviews / "train.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    tokens = load_tokenizer(str(tiny()))([texts[row - 1] for row in step["rows"]], max_length=16, truncation=True)
    bad = {tuple(ids[ids != 0].tolist()) for ids in watched.batch}
    named = {tuple(ids) for ids in tokens["input_ids"]}
    assert named >= bad if what == "gradient" else named == bad
    sentence = capsys.readouterr().err
    for part in ("Step 3", "0.008182", step["module"], f"rows {step['rows'][0]}, ", f"{reviews} (train)"):
        assert part in sentence
    assert sentence.endswith(f"peft-lightning: error: {run.read_result()['error']}\n")
    last = saved(run.last_checkpoint)
    assert last["global_step"] == 3
    for name, tensor in last["state_dict"].items():
        assert torch.equal(tensor, watched.before[6][name])


def test_a_step_can_be_left_out(fit, tmp_path, monkeypatch):
    watched = Watched(monkeypatch, {5})
    run = RunDirectory(fit(tmp_path / "run", *SKIP, epochs=1))
    assert run.read_result()["status"] == "done"
    assert [step["step"] for step in run.read_result()["nonfinite_steps"]] == [5]
    for name, tensor in watched.before[5].items():
        assert torch.equal(tensor, watched.before[6][name])
    assert any(not torch.equal(tensor, watched.before[5][name]) for name, tensor in watched.before[4].items())
    assert any(not torch.equal(tensor, watched.before[7][name]) for name, tensor in watched.before[6].items())
    for key, moments in watched.moments[5].items():
        assert all(torch.equal(value, watched.moments[6][key][name]) for name, value in moments.items())
    assert is_finite(run.last_checkpoint)
    assert is_finite(run.best_checkpoint)


def test_the_learning_rate_can_be_reduced_from_then_on(fit, tmp_path, monkeypatch):
    """Without the bad steps it would rise to step 1 and fall linearly to step 12."""
    Watched(monkeypatch, {3, 7})
    run = RunDirectory(fit(tmp_path / "run", *REDUCE, "--trainer.log_every_n_steps=1", epochs=1))
    rates = [float(row["train/lr"]) for row in rows_of(run.metrics) if row["train/lr"]]
    assert rates == pytest.approx(
        [1e-2 * (step / 1 if step < 1 else (12 - step) / 11) * 0.5 ** ((step > 3) + (step > 7)) for step in range(12)]
    )
    assert len(run.read_result()["nonfinite_steps"]) == 2
    assert saved(run.last_checkpoint)["lr_schedulers"][0]["base_lrs"] == pytest.approx([2.5e-3, 2.5e-3])


def test_too_many_such_steps_in_a_row_end_the_run(fit, tmp_path, monkeypatch):
    watched = Watched(monkeypatch, {1, 4, 5, 6})
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path / "run", *SKIP, "--trainer.callbacks.most_in_a_row=3", "--checkpoint_every_n_steps=1")
    assert stop.value.code == 3
    result = RunDirectory(tmp_path / "run").read_result()
    assert result["status"] == "nonfinite"
    assert [step["step"] for step in result["nonfinite_steps"]] == [1, 4, 5, 6]
    last = saved(RunDirectory(tmp_path / "run").last_checkpoint)["state_dict"]
    assert all(torch.equal(tensor, watched.before[4][name]) for name, tensor in last.items())


@pytest.mark.parametrize("every", [1, 100])
def test_weights_that_are_not_finite_are_never_saved(fit, tmp_path, monkeypatch, capsys, every):
    """The gradients of the first step are finite, and the step itself overflows; with it the epoch is over."""
    original = Houlsby.optimizer_step

    def overflow(self, *args):
        original(self, *args)
        next(p for p in self.parameters() if p.requires_grad).data.view(-1)[0] = math.inf

    monkeypatch.setattr(Houlsby, "optimizer_step", overflow)
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path / "run", "--trainer.limit_train_batches=1", f"--checkpoint_every_n_steps={every}")
    assert stop.value.code == 3
    assert "After 1 steps the trained weights" in capsys.readouterr().err
    run = RunDirectory(tmp_path / "run")
    assert run.read_result()["status"] == "nonfinite"
    assert not run.last_checkpoint.exists()
    assert not run.best_checkpoint.exists()


def test_a_validation_that_is_not_finite_is_reported_and_is_not_the_best(fit, tmp_path, monkeypatch, caplog):
    def undefined_at_first(self, stage, scores, batch):
        self.log("val/accuracy", math.nan if self.current_epoch == 0 else 0.5)

    monkeypatch.setattr(Houlsby, "_evaluate", undefined_at_first)
    run = RunDirectory(fit(tmp_path / "run"))
    result = run.read_result()
    assert result["status"] == "done"
    assert result["metrics"]["val/accuracy"] == 0.5
    assert result["nonfinite_validations"] == [{"step": 12, "metric": "val/accuracy", "value": "nan"}]
    assert "The validation after 12 steps gave nan as val/accuracy" in caplog.text


def test_a_method_that_reads_gradients_after_a_step_bears_one_that_was_left_out(fit, tmp_path, monkeypatch):
    Watched(monkeypatch, {5}, method=AdaLoRA)
    run = RunDirectory(fit(tmp_path / "run", *SKIP, model="AdaLoRA", epochs=1))
    assert run.read_result()["status"] == "done"
    assert is_finite(run.last_checkpoint)
    means = saved(run.last_checkpoint)["adalora"]["means"]
    assert all(tensor.isfinite().all() for tensors in means for tensor in tensors)


class Half(LightningModule):
    """A linear map in half precision, whose loss can be made infinite at a step."""

    def __init__(self, infinite_at=None):
        super().__init__()
        self.map = nn.Linear(4, 1)
        self.infinite_at = infinite_at

    def training_step(self, batch, batch_idx):
        loss = self.map(batch).square().mean()
        return loss * math.inf if batch_idx == self.infinite_at else loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


def train_in_half(module, tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    trainer = Trainer(
        accelerator="cpu",
        plugins=MixedPrecision("16-mixed", "cpu", scaler),
        callbacks=[NonFiniteGuard()],
        max_steps=12,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, DataLoader(torch.ones(36, 4), batch_size=3))
    return scaler


def test_steps_that_the_loss_scaler_skips_are_normal(tmp_path):
    module = Half()
    before = module.map.weight.detach().clone()
    scaler = train_in_half(module, tmp_path)
    assert scaler.get_scale() < 2.0**20
    assert not torch.equal(module.map.weight, before)
    assert module.map.weight.isfinite().all()


def test_an_infinite_loss_is_not_up_to_the_loss_scaler(tmp_path):
    module = Half(infinite_at=10)
    with pytest.raises(NonFiniteError, match="Step 10"):
        train_in_half(module, tmp_path)
    assert module.map.weight.isfinite().all()


@pytest.mark.parametrize(
    "option", [{"policy": "wait"}, {"factor": 1.0}, {"factor": 0.0}, {"factor": math.nan}, {"most_in_a_row": 0}]
)
def test_impossible_options_are_refused(option):
    with pytest.raises(UserError, match=f"{next(iter(option))} of NonFiniteGuard"):
        NonFiniteGuard(**option)


ONE_BAD_RANK = """
import math, sys
from peft_lightning.cli import main
from peft_lightning.methods import LoRA

original = LoRA.training_step

def training_step(self, batch, batch_idx):
    loss = original(self, batch, batch_idx)
    bad = self.global_rank == 1 and (self.global_step == 2 or self.global_step >= 5)
    if bad:
        print("BAD", self.global_step, batch["input_ids"].tolist(), flush=True)
    return loss * math.inf if bad else loss

LoRA.training_step = training_step
if __name__ == "__main__":
    main(sys.argv[1:])
"""


def test_all_processes_decide_alike_when_the_batch_of_one_is_bad(tmp_path, tiny, reviews):
    """On the second of two processes step 2 is bad, which is left out, and then all from step 5 on, which are not."""
    script, run = tmp_path / "one_bad_rank.py", RunDirectory(tmp_path / "run")
    script.write_text(ONE_BAD_RANK, encoding="utf-8")
    options = [f"--model.backbone={tiny()}", "--data=TextClassification", f"--data.source={reviews}"]
    options += ["--data.max_length=16", "--data.batch_size=4", f"--run_dir={run.path}", "--trainer.max_epochs=2"]
    options += ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.devices=2"]
    options += ["--trainer.strategy=ddp", *SKIP, "--trainer.callbacks.most_in_a_row=3", "--checkpoint_every_n_steps=1"]
    done = subprocess.run(
        [sys.executable, str(script), "fit", "--model=LoRA", *options],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 3, done.stderr
    result = run.read_result()
    assert result["status"] == "nonfinite"
    assert [step["step"] for step in result["nonfinite_steps"]] == [2, 5, 6, 7]
    with (reviews / "train.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    batches = {
        int(line.split()[1]): ast.literal_eval(line.split(maxsplit=2)[2])
        for line in done.stdout.splitlines()
        if "BAD" in line
    }
    tokenizer = load_tokenizer(str(tiny()))
    for step in result["nonfinite_steps"]:
        tokens = tokenizer([texts[row - 1] for row in step["rows"]], max_length=16, truncation=True)["input_ids"]
        assert {tuple(ids) for ids in tokens} == {tuple(i for i in ids if i) for ids in batches[step["step"]]}
    assert is_finite(run.last_checkpoint)
    assert done.stderr.count("peft-lightning: error:") == 1
