"""AdamW sees what is trained and nothing else; the learning rate rises and falls as told."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader

from peft_lightning.errors import UserError
from peft_lightning.methods import FullFineTuning, Houlsby, LoRA
from peft_lightning.methods.optimization import parameter_groups, warmup_and_decay
from peft_lightning.testing import Case


def test_only_trained_parameters_and_no_decay_on_biases_and_layer_norms(tiny, tmp_path):
    method = Case(Houlsby, tiny(), tmp_path, {"bottleneck": 8}).build()
    decayed, plain = sorted(parameter_groups(method, 0.1, 1e-3, {}), key=lambda group: -group["weight_decay"])
    names = {id(p): name for name, p in method.named_parameters()}
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0.0
    assert {names[id(p)].rpartition(".")[2] for p in decayed["params"]} == {"weight"}
    assert not any("LayerNorm" in names[id(p)] for p in decayed["params"])
    trained = {id(p) for p in method.parameters() if p.requires_grad}
    assert {id(p) for group in (decayed, plain) for p in group["params"]} == trained


def test_lora_plus_gives_b_its_own_learning_rate(tiny, tmp_path):
    method = Case(LoRA, tiny(), tmp_path, {"rank": 4, "lr_ratio": 16.0, "lr": 1e-3}).build()
    rate = {
        p: group["lr"]
        for group in parameter_groups(method, 0.0, 1e-3, method.learning_rate_ratios())
        for p in group["params"]
    }
    updates = [insertion.module for insertion in method.backbone.insertions]
    assert {rate[update.A] for update in updates} == {1e-3}
    assert {rate[update.B] for update in updates} == {16e-3}
    assert {rate[p] for p in method.backbone.head.values()} == {1e-3}


@pytest.mark.parametrize("model_type", ["llama", "t5", "mbart", "gpt2"])
def test_norms_of_every_kind_and_place_have_no_weight_decay(model_type, tiny, tmp_path):
    method = Case(FullFineTuning, tiny(model_type), tmp_path).build()
    names = {id(p): name.removeprefix("backbone.model.") for name, p in method.named_parameters()}
    plain = [p for g in parameter_groups(method, 0.1, 1e-3, {}) if not g["weight_decay"] for p in g["params"]]
    # At the start weights of norms are around 1 in the tiny models, and nothing else is.
    around_one = {name for name, p in method.backbone.pretrained.items() if p.mean() > 0.5}
    biases = {name for name in names.values() if name.endswith(".bias")}
    assert {names[id(p)] for p in plain} == around_one | biases
    assert len(around_one) == {"llama": 7, "t5": 12, "mbart": 14, "gpt2": 7}[model_type]


def rates(schedule, warmup, steps=10):
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = warmup_and_decay(optimizer, schedule, warmup, steps)
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return [*found, scheduler.get_last_lr()[0]]


def test_linear_schedule_rises_for_the_given_fraction_and_falls_to_zero():
    assert rates("linear", 0.2) == pytest.approx([0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0])


def test_constant_schedule_stays_after_the_warm_up():
    assert rates("constant", 0.2) == pytest.approx([0, 0.5, *[1] * 9])


def test_cosine_schedule_falls_to_zero():
    found = rates("cosine", 0.0)
    assert found[0] == 1
    assert found[5] == pytest.approx(0.5)
    assert found[-1] == pytest.approx(0)


def test_a_run_without_end_is_refused():
    with pytest.raises(UserError, match="max_epochs"):
        warmup_and_decay(torch.optim.AdamW([nn.Parameter(torch.zeros(1))]), "linear", 0.1, float("inf"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("lr", 0.0),
        ("weight_decay", -0.1),
        ("warmup", 1.5),
        ("warmup", -0.1),
        ("betas", [0.9]),
        ("betas", [0.9, 1.0]),
        ("eps", 0.0),
        ("schedule", "poly"),
    ],
)
def test_impossible_options_are_named(tiny, tmp_path, option, value):
    with pytest.raises(UserError, match=f"{option} is "):
        Case(Houlsby, tiny(), tmp_path).build(**{option: value})


def test_all_options_reach_the_optimizer_and_steps_count_accumulation(tiny, tmp_path):
    case = Case(FullFineTuning, tiny(), tmp_path)
    method = case.build(lr=0.5, betas=(0.8, 0.9), eps=1e-3, warmup=0.5, weight_decay=0.2)
    seen = []

    class Watch(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            group = optimizer.param_groups[0]
            seen.append((group["lr"], group["betas"], group["eps"], group["weight_decay"]))

    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=2,
        callbacks=[Watch()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(method, DataLoader([case.batch()] * 8, batch_size=None))
    assert [lr for lr, *_ in seen] == pytest.approx([0, 0.25, 0.5, 0.25])
    assert all(rest == [(0.8, 0.9), 1e-3, 0.2] for _, *rest in seen)
