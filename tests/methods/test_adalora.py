"""AdaLoRA shares out its ranks as its paper says, and goes on doing so after an interruption."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader

from peft_lightning.errors import UserError
from peft_lightning.methods import AdaLoRA
from peft_lightning.methods.rank_allocation import Budget, RankAllocator
from peft_lightning.modules import SingularLowRank
from peft_lightning.testing import Case


def test_the_budget_falls_as_a_cube_between_two_plateaus():
    budget = Budget(start=72, target=24, total=100, first=10, last=30)
    assert [budget.at(step) for step in (1, 10, 70, 85, 100)] == [72, 72, 24, 24, 24]
    assert budget.at(40) == int(24 + 48 * (1 - 30 / 60) ** 3)
    assert not budget.is_final(69)
    assert budget.is_final(70)


def test_importance_is_smoothed_sensitivity_times_smoothed_deviation():
    """Three steps with given gradients, written out for one triplet."""
    torch.manual_seed(0)
    update = SingularLowRank(4, 5, rank=2, alpha=2.0)
    nn.init.normal_(update.singular)
    budget = Budget(start=2, target=2, total=100, first=50, last=0)
    allocator = RankAllocator([update], budget, beta1=0.8, beta2=0.6, interval=1)
    weights = {"p": update.P[:, 1], "s": update.singular[1], "q": update.Q[1]}
    mean, deviation = (dict.fromkeys(weights, 0.0) for _ in range(2))
    for step in range(1, 4):
        for parameter in update.parameters():
            parameter.grad = torch.randn_like(parameter)
        gradients = {"p": update.P.grad[:, 1], "s": update.singular.grad[1], "q": update.Q.grad[1]}
        for name, weight in weights.items():
            importance = (weight.detach() * gradients[name]).abs()
            mean[name] = 0.8 * mean[name] + 0.2 * importance
            deviation[name] = 0.6 * deviation[name] + 0.4 * (importance - mean[name]).abs()
        allocator.after_step(step)
    wanted = sum((mean[name] * deviation[name]).mean() for name in weights)
    torch.testing.assert_close(allocator.scores()[0][1], wanted)


def test_the_least_important_triplets_of_all_maps_together_go():
    updates = [SingularLowRank(4, 5, rank=3, alpha=3.0) for _ in range(2)]
    for update, sizes in zip(updates, ([1.0, 9.0, 8.0], [2.0, 7.0, 3.0]), strict=True):
        update.singular.data = torch.tensor(sizes)
        for parameter in update.parameters():
            parameter.grad = torch.ones_like(parameter)
    allocator = RankAllocator(updates, Budget(start=6, target=3, total=2, first=1, last=0), 0.5, 0.5, 1)
    allocator.after_step(1)
    assert all(update.singular.all() for update in updates)
    allocator.after_step(2)
    assert [update.singular.count_nonzero().item() for update in updates] == [2, 1]
    assert updates[0].singular.tolist() == [0, 9, 8]
    assert updates[1].singular.tolist() == [0, 7, 0]


def trainer(tmp_path, steps, **options):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(accelerator="cpu", max_steps=steps, default_root_dir=tmp_path, **quiet, **options)


def case(tiny, tmp_path):
    options = {"rank": 1, "init_rank": 4, "first_phase": 0.2, "last_phase": 0.3, "mask_interval": 1, "lr": 1e-2}
    return Case(AdaLoRA, tiny(), tmp_path, options)


def test_training_ends_at_the_target_rank_with_p_and_q_less_oblique(tiny, tmp_path):
    made = case(tiny, tmp_path)
    method = made.build()
    before = sum(update.obliqueness() for update in method.updates).item()
    trainer(tmp_path, 10).fit(method, DataLoader([made.batch()] * 10, batch_size=None))
    assert sum(update.singular.count_nonzero().item() for update in method.updates) == 1 * len(method.updates)
    assert sum(update.obliqueness() for update in method.updates).item() < before


def test_a_run_that_goes_on_ends_where_it_would_have(tiny, tmp_path):
    made = case(tiny, tmp_path)

    class SaveAfterTheFirstEpoch(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    def run(callbacks, checkpoint=None):
        method = made.build()
        for module in method.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        batches = DataLoader([made.batch()] * 5, batch_size=None)
        trainer(tmp_path, 10, callbacks=callbacks).fit(method, batches, ckpt_path=checkpoint, weights_only=True)
        return method.trained_state()

    straight = run([SaveAfterTheFirstEpoch()])
    resumed = run([], tmp_path / "half.ckpt")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in straight.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 13}, "rank is 13; give one between 1 and init_rank, which is 12"),
        ({"init_rank": 40, "rank": 8}, "init_rank is 40; give one between 1 and 32"),
        ({"first_phase": 0.7}, "first_phase is 0.7"),
        ({"mask_interval": 0}, "mask_interval is 0"),
        ({"beta1": 1.0}, "beta1 is 1.0"),
        ({"orthogonality": -1.0}, "orthogonality is -1.0"),
    ],
)
def test_impossible_options_are_named(tiny, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        Case(AdaLoRA, tiny(), tmp_path, options).build()
