"""Which examples go into which batch: pure functions of lengths, seed and epoch."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from peft_lightning.errors import UserError

POOL = 50


class TrainingBatches(Sampler[list[int]]):
    """Shuffled batches of examples of similar length.

    The examples are shuffled, cut into pools of 50 batches and sorted by length within each pool; the batches of all
    pools are then shuffled. The order depends on seed and epoch alone. On several devices each takes its share of every
    batch, so that all of them take the same number of steps. An epoch that was interrupted goes on where it was.

    Args:
        lengths: Number of tokens of each example.
        batch_size: Examples a batch on one device.
        seed: Seed of the order.
        rank: Number of this device.
        world_size: Number of devices.
    """

    def __init__(
        self, lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ):
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._start = (0, 0)

    @property
    def sampler(self) -> "TrainingBatches":
        """Itself: Lightning calls `set_epoch` of `loader.sampler` and `loader.batch_sampler.sampler`, no other."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Lightning says which epoch begins."""
        self.epoch = epoch

    def start_at(self, epoch: int, batches: int) -> None:
        """Goes on in an epoch of which so many batches were trained; other epochs are whole."""
        self.epoch, self._start = epoch, (epoch, batches)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return -(-len(self.lengths) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the present epoch that are left."""
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(np.arange(len(self.lengths), dtype=np.int32))
        size = self.batch_size * self.world_size
        for start in range(0, len(order), size * POOL):
            pool = order[start : start + size * POOL]
            pool[:] = pool[np.argsort(-self.lengths[pool], kind="stable")]
        trained = self._start[1] if self.epoch == self._start[0] else 0
        for number in generator.permutation(len(self))[trained:]:
            batch = order[number * size : (number + 1) * size]
            # A last batch smaller than the number of devices is filled up, or a device would wait for ever.
            batch = np.resize(batch, max(len(batch), self.world_size))
            yield batch[self.rank :: self.world_size].tolist()


class EvaluationBatches(Sampler[list[int]]):
    """Every example exactly once, on one device or many, in equally many batches on each.

    Args:
        lengths: Number of tokens of each example.
        batch_size: The most examples a batch on one device.
        rank: Number of this device.
        world_size: Number of devices.
        by_length: Whether to go from long to short, which pads least, rather than in the given order.

    Raises:
        UserError: There are fewer examples than devices.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        by_length: bool = True,
    ):
        count = len(lengths)
        if count < world_size:
            raise UserError(f"{count} examples cannot be shared by {world_size} devices; give fewer --trainer.devices.")
        order = np.argsort(-np.asarray(lengths), kind="stable") if by_length else np.arange(count)
        batches = -(-count // (world_size * batch_size))
        self.batches = np.array_split(order[rank::world_size].astype(np.int32), batches)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches, always the same."""
        return (batch.tolist() for batch in self.batches)
