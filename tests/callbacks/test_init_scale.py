"""InitScale redraws what a module declares, where the scale has a meaning, before the run begins and only then."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from small_files import rows_of

import peft_lightning
from peft_lightning.callbacks import InitScale
from peft_lightning.cli import main
from peft_lightning.errors import UserError
from peft_lightning.methods import (
    IA3,
    MAM,
    AdaLoRA,
    BitFit,
    Compacter,
    FullFineTuning,
    Houlsby,
    InA,
    LayerNormTuning,
    LinearProbe,
    LoRA,
    LoReFT,
    ParallelAdapter,
    Pfeiffer,
    PrefixTuning,
    PromptTuning,
    PTuning,
    PTuningV2,
    TopLayers,
    VeRA,
    read_checkpoint,
)
from peft_lightning.runs import RunDirectory
from peft_lightning.testing import Case

STD = 0.25
# Method, options, and how the names of exactly those tensors end that are redrawn.
REDRAWN = {
    "Houlsby": (Houlsby, {"bottleneck": 8, "depth": 2}, ("down.weight", "inner.0.weight", "up.weight")),
    "Pfeiffer": (Pfeiffer, {"bottleneck": 8}, ("down.weight", "up.weight")),
    "ParallelAdapter": (ParallelAdapter, {"bottleneck": 8, "learned_scale": True}, ("down.weight", "up.weight")),
    "Compacter": (Compacter, {"bottleneck": 8}, ("rule.A",)),
    "LoRA": (LoRA, {"rank": 4}, (".A", ".B")),
    "DoRA": (LoRA, {"rank": 4, "dora": True}, (".A", ".B")),
    "InA": (InA, {"rank": 4}, (".A", ".B")),
    "AdaLoRA": (AdaLoRA, {"rank": 2, "init_rank": 4}, (".P", ".Q", ".singular")),
    "VeRA": (VeRA, {"rank": 8}, (".b",)),
    "MAM": (
        MAM,
        {"bottleneck": 8, "prompt_length": 5, "projection": False},
        ("down.weight", "up.weight", ".key", ".value"),
    ),
    "PTuningV2": (
        PTuningV2,
        {"prompt_length": 5, "input_prompt_length": 3},
        ("inserted.key", "inserted.value", ".prompt"),
    ),
    "PrefixTuning": (
        PrefixTuning,
        {"prompt_length": 5, "projection_size": 6},
        ("inserted.linear.weight", "inserted.linear.bias"),
    ),
    "PromptTuning": (PromptTuning, {"prompt_length": 5}, (".prompt",)),
    "PTuning": (PTuning, {"prompt_length": 5}, ("mlp.2.weight", "mlp.2.bias")),
}
MEANINGLESS = {
    "FullFineTuning": (FullFineTuning, {}),
    "TopLayers": (TopLayers, {"k": 1}),
    "LinearProbe": (LinearProbe, {}),
    "LayerNormTuning": (LayerNormTuning, {}),
    "BitFit": (BitFit, {}),
    "IA3": (IA3, {}),
    "LoReFT": (LoReFT, {}),
    "PiSSA": (LoRA, {"rank": 4, "init": "pissa"}),
}


@pytest.fixture
def build(tiny, tmp_path):
    def make(method, options, seed=0, std=None):
        built = Case(method, tiny(), tmp_path).build(seed, **options)
        if std is not None:
            InitScale(std).setup(None, built, "fit")
        return built

    return make


@pytest.mark.parametrize("name", REDRAWN)
def test_exactly_what_is_declared_is_redrawn_from_a_cut_normal_distribution(build, name):
    method, options, ends = REDRAWN[name]
    before = build(method, options).trained_state()
    after = build(method, options, std=STD).trained_state()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    wanted = {key for key in before if "inserted" in key and key.endswith(ends)}
    assert changed == wanted
    assert {end for end in ends if any(key.endswith(end) for key in changed)} == set(ends)
    drawn = torch.cat([after[key].flatten() for key in wanted])
    assert drawn.abs().max() <= 2 * STD
    if len(drawn) > 1000:
        # A standard normal variable cut at 2 has the deviation sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)) = 0.8796.
        assert drawn.std() == pytest.approx(0.8796 * STD, rel=0.05)
        assert drawn.abs().max() > 1.8 * STD


@pytest.mark.parametrize("name", MEANINGLESS)
def test_a_method_without_a_scale_is_refused(build, name):
    method, options = MEANINGLESS[name]
    with pytest.raises(UserError, match=f"nothing to redraw in {method.__name__}"):
        build(method, options, std=STD)


def test_a_tiny_scale_starts_at_the_backbone_and_a_large_one_does_not(build, tiny, tmp_path):
    batch = Case(LoRA, tiny(), tmp_path).batch()
    for method, options in ((Houlsby, {"bottleneck": 8}), (LoRA, {"rank": 4}), (Compacter, {"bottleneck": 8})):
        distance = {}
        for std in (1e-7, 1.0):
            built = build(method, options, std=std)
            with torch.no_grad(), built.disabled():
                bare = built(batch).logits
            with torch.no_grad():
                distance[std] = float((built(batch).logits - bare).abs().max())
        assert distance[1e-7] < 1e-5 < 1e-3 < distance[1.0]


def test_numbers_follow_from_the_seed_and_directions_not_from_the_scale(build):
    def weight(seed, std, draws=0):
        method = build(Houlsby, {"bottleneck": 8}, seed)
        torch.rand(draws)  # another device may have drawn other numbers before
        InitScale(std).setup(None, method, "fit")
        return next(tensor for key, tensor in method.trained_state().items() if key.endswith("down.weight"))

    assert torch.equal(weight(0, 0.1), weight(0, 0.1, draws=7))
    assert not torch.equal(weight(0, 0.1), weight(1, 0.1))
    assert torch.allclose(weight(0, 0.1) * 10, weight(0, 1.0))


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_evaluation_redraws_nothing(build, stage):
    method = build(Houlsby, {"bottleneck": 8})
    before = {key: tensor.clone() for key, tensor in method.trained_state().items()}
    InitScale(1.0).setup(None, method, stage)
    assert all(torch.equal(tensor, before[key]) for key, tensor in method.trained_state().items())


def scale(std):
    return ("--trainer.callbacks+=InitScale", f"--trainer.callbacks.std={std}")


def test_from_the_command_line_it_is_a_part_of_the_run(fit, refused, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = ("--run_dir=null", "--trainer.max_steps=1", "--trainer.limit_val_batches=1")
    for std in (0.5, 1e-3):
        fit("ignored", *scale(std), *short, "--model.lr=1e-9", epochs=1)
    runs = sorted(Path("runs").glob("*/Houlsby/*/seed0"))
    assert len(runs) == 2
    largest = {}
    for run in map(RunDirectory, runs):
        (callback,) = run.read_config()["trainer"]["callbacks"]
        weights = read_checkpoint(run.best_checkpoint)["state_dict"]
        largest[callback["init_args"]["std"]] = max(
            float(w.abs().max()) for n, w in weights.items() if n.endswith("down.weight")
        )
    assert 0.9 < largest[0.5] <= 1.0 + 1e-6
    assert 0.0018 < largest[1e-3] <= 0.002 + 1e-6
    main(["summary", *map(str, runs)])
    assert capsys.readouterr().out.count("| Houlsby/") == 2
    config = RunDirectory(runs[0]).config
    sentence = refused(["fit", f"--config={config}", f"--run_dir={runs[0]}", "--trainer.callbacks.std=7"])
    assert "another configuration: trainer.callbacks was" in sentence


def test_a_wrong_scale_and_a_wrong_method_are_named_before_training(fit, tmp_path, capsys):
    for model, std, words in (
        ("Houlsby", 0, "std of InitScale is 0"),
        ("Houlsby", ".inf", "is inf"),
        ("BitFit", 1, "BitFit"),
    ):
        with pytest.raises(SystemExit) as stop:
            fit(tmp_path / "run", *scale(std), model=model)
        assert stop.value.code == 1
        assert words in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", *scale("many"))
    assert "option --trainer.callbacks.std of InitScale: expected float, got 'many'" in capsys.readouterr().err


def test_a_run_that_goes_on_keeps_its_weights(fit, tmp_path, monkeypatch):
    """Stopped in the second epoch, it begins that again with the weights at the end of the first."""
    original = peft_lightning.methods.Houlsby.training_step
    begun = {}

    def stops(self, batch, batch_idx):
        if self.trainer.global_step == 16:
            raise RuntimeError("power failure")
        return original(self, batch, batch_idx)

    def notes(self, batch, batch_idx):
        begun.setdefault(self.trainer.global_step, {n: t.clone() for n, t in self.trained_state().items()})
        return original(self, batch, batch_idx)

    monkeypatch.setattr(peft_lightning.methods.Houlsby, "training_step", stops)
    with pytest.raises(RuntimeError, match="power failure"):
        fit(tmp_path / "run", *scale(0.3))
    last = read_checkpoint(RunDirectory(tmp_path / "run").last_checkpoint)["state_dict"]
    monkeypatch.setattr(peft_lightning.methods.Houlsby, "training_step", notes)
    fit(tmp_path / "run", *scale(0.3))
    assert min(begun) == 12
    assert all(torch.equal(tensor, begun[12][name]) for name, tensor in last.items())


WITNESS = """
import torch
from lightning.pytorch import Callback


class Witness(Callback):
    def setup(self, trainer, pl_module, stage):
        torch.rand(trainer.global_rank)  # ranks need not have drawn equally many numbers

    def on_train_start(self, trainer, pl_module):
        torch.save(pl_module.trained_state(), f"start{trainer.global_rank}.pt")

    def on_train_end(self, trainer, pl_module):
        torch.save(pl_module.trained_state(), f"end{trainer.global_rank}.pt")
"""


def test_two_processes_start_and_end_with_the_same_weights(build, tiny, reviews, tmp_path, monkeypatch):
    """They are those that one process draws; and what AdapterActivity sums over both is what one process finds."""
    (tmp_path / "witness.py").write_text(WITNESS)
    monkeypatch.syspath_prepend(tmp_path)
    callbacks = [
        {"class_path": "witness.Witness"},
        {"class_path": "InitScale", "init_args": {"std": STD}},
        {"class_path": "AdapterActivity"},
    ]
    trainer = {"max_epochs": 1, "accelerator": "cpu", "devices": 2, "strategy": "ddp", "callbacks": callbacks}
    model = {"class_path": "Houlsby", "init_args": {"backbone": str(tiny()), "bottleneck": 8}}
    data = {"class_path": "TextClassification", "init_args": {"source": str(reviews), "max_length": 16}}
    config = {"model": model, "data": data, "trainer": trainer, "run_dir": "run"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    root = Path(peft_lightning.__file__).parent.parent
    command = [
        sys.executable,
        "-m",
        "peft_lightning",
        "fit",
        "--config=config.yaml",
        "--trainer.enable_progress_bar=false",
    ]
    path = {"PYTHONPATH": f"{tmp_path}:{root}"}
    subprocess.run(command, check=True, timeout=300, cwd=tmp_path, env=dict(os.environ) | path)

    state = {name: torch.load(tmp_path / f"{name}.pt") for name in ("start0", "start1", "end0", "end1")}
    alone = build(Houlsby, {"bottleneck": 8}, std=STD).trained_state()
    redrawn = [name for name in alone if name.endswith(("down.weight", "up.weight"))]
    for name in redrawn:
        assert torch.equal(state["start0"][name], alone[name])
        assert torch.equal(state["start1"][name], alone[name])
    assert all(torch.equal(tensor, state["end1"][name]) for name, tensor in state["end0"].items())
    assert any(not torch.equal(state["end0"][name], alone[name]) for name in redrawn)

    activity = tmp_path / "run" / "adapter_activity_validation.csv"
    on_two = rows_of(activity)
    main(
        [
            "validate",
            str(tmp_path / "run"),
            "--trainer.callbacks=[AdapterActivity]",
            "--trainer.enable_progress_bar=false",
        ]
    )
    on_one = rows_of(activity)
    assert [row["tokens"] for row in on_one] == [row["tokens"] for row in on_two]
    for one, two in zip(on_one, on_two, strict=True):
        assert float(one["moved"]) == pytest.approx(float(two["moved"]), rel=1e-6)
