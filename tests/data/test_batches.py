"""Which examples go into which batch."""

import numpy as np
import pytest

from peft_lightning.data.batches import EvaluationBatches, TrainingBatches
from peft_lightning.errors import UserError

LENGTHS = np.random.default_rng(0).integers(3, 60, size=1003)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_example_is_seen_and_all_devices_take_equally_many_steps(world_size):
    ranks = [TrainingBatches(LENGTHS, 8, seed=0, rank=rank, world_size=world_size) for rank in range(world_size)]
    batches = [list(rank) for rank in ranks]
    assert {len(own) for own in batches} == {len(ranks[0])}
    seen = [index for own in batches for batch in own for index in batch]
    assert set(seen) == set(range(len(LENGTHS)))
    assert len(seen) - len(LENGTHS) < world_size
    assert max(len(batch) for own in batches for batch in own) == 8


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        batches = TrainingBatches(LENGTHS, 8, seed)
        batches.set_epoch(epoch)
        np.random.default_rng().random(100)
        return list(batches)

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def test_an_epoch_goes_on_behind_the_last_batch_and_the_next_one_is_whole():
    straight, resumed = TrainingBatches(LENGTHS, 8, seed=0), TrainingBatches(LENGTHS, 8, seed=0)
    straight.set_epoch(3)
    resumed.start_at(3, 100)
    assert list(resumed) == list(straight)[100:]
    assert len(resumed) == len(straight)
    for batches in (straight, resumed):
        batches.set_epoch(4)
    assert list(resumed) == list(straight)


def test_batches_hold_similar_lengths_and_come_in_no_order_of_length():
    batches = list(TrainingBatches(LENGTHS, 8, seed=0))
    padded = sum(LENGTHS[batch].max() * len(batch) for batch in batches)
    assert padded < 1.1 * LENGTHS.sum()
    means = [LENGTHS[batch].mean() for batch in batches]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.3


def test_a_last_batch_smaller_than_the_number_of_devices_is_filled_up():
    own = [list(TrainingBatches([5, 5, 5, 5, 5], 2, seed=0, rank=rank, world_size=2)) for rank in range(2)]
    assert [len(batches) for batches in own] == [2, 2]
    assert all(batch for batches in own for batch in batches)


@pytest.mark.parametrize("count", [7, 8, 9, 21, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_example_once_in_equally_many_batches(count, world_size):
    own = [EvaluationBatches(LENGTHS[:count], 4, rank, world_size) for rank in range(world_size)]
    assert len({len(batches) for batches in own}) == 1
    seen = [index for batches in own for batch in batches for index in batch]
    assert sorted(seen) == list(range(count))
    assert all(0 < len(batch) <= 4 for batches in own for batch in batches)


def test_evaluation_can_keep_the_order_of_the_file():
    batches = EvaluationBatches(LENGTHS[:10], 4, by_length=False)
    assert [index for batch in batches for index in batch] == list(range(10))


def test_fewer_examples_than_devices_are_refused():
    with pytest.raises(UserError, match="2 examples cannot be shared by 3 devices"):
        EvaluationBatches([5, 5], 4, rank=0, world_size=3)
