"""Lets a run that was stopped go on as if it had not been."""

from dataclasses import asdict, dataclass
from typing import Any

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from peft_lightning.callbacks.epoch_metrics import NOTHING, add_earlier, count_on, counted, log_again
from peft_lightning.callbacks.metrics_file import MetricsFile
from peft_lightning.callbacks.place import (
    Place,
    all_steps_are_done,
    batches_follow,
    end_batches,
    go_to,
    inside_a_window,
    place_of_a_window,
    present_place,
    shift_limits,
    start_even_at_the_limit,
)
from peft_lightning.callbacks.random_state import RandomState, restore_random_state
from peft_lightning.errors import UserError

STATE = "exact_resume"


@dataclass(frozen=True)
class Moment:
    """What goes on from a place: the random streams, what is counted over the epoch, the rows of metrics."""

    place: Place
    random: RandomState
    counted: dict[str, dict[str, Any]]
    rows: dict[str, Any]


class ExactResume(Callback):
    """Adds to a checkpoint what makes the run that goes on from it bit-equal to one that was never stopped.

    That is, for every process, the random states and the sums behind metrics of an epoch; the place in the order of the
    batches; what is still to be logged or validated; and the rows of `metrics.csv`. A checkpoint that is written inside
    an accumulation window stands for the beginning of the window, whose batches are then trained again: until its end
    neither weights nor optimizer have changed. One that is written inside a validation stands for its beginning.

    In a hook the checkpoint has to be written behind all other callbacks, as Lightning's checkpoint callbacks are, and
    not while the optimizer steps: in a signal handler remember the signal, and write at the end of the batch.

    Args:
        metrics: The rows that go on with the run.
    """

    def __init__(self, metrics: MetricsFile):
        super().__init__()
        self.metrics = metrics
        self._resumed: dict[str, Any] | None = None
        self._earlier_values: dict[str, Any] = {}
        self._window: Moment | None = None
        self._before_validation: RandomState | None = None
        self._steps_before = 0
        self._validated = False
        self._ending = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses callbacks that keep copies of the model, which could not go on from trained weights alone.

        Raises:
            UserError: There is one.
        """
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging | StochasticWeightAveraging):
                raise UserError(
                    f"{type(callback).__name__} keeps an average of the whole model, with which a run that was stopped "
                    "cannot go on; leave it out of --trainer.callbacks."
                )

    # While training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes on from the place of the checkpoint."""
        if self._resumed is None:
            return
        state, self._resumed = self._resumed, None
        place = Place(**state["place"])
        go_to(place, trainer)
        self._ending = place.batches > 0 and all_steps_are_done(trainer)
        if self._ending:
            end_batches(trainer)
            shift_limits(trainer, +1)
        self._steps_before, self._validated = place.steps - 1, not place.validation
        if trainer.is_global_zero:
            self.metrics.go_on(**state["rows"])
            if place.row:
                for logger in trainer.loggers:
                    logger.log_metrics(place.row, place.row_step)
        if len(state["processes"]) != trainer.world_size:
            rank_zero_warn(
                f"The checkpoint is of a run on {len(state['processes'])} devices and this one is on "
                f"{trainer.world_size}: it goes on with other random states and another order of examples."
            )
            return
        mine = state["processes"][trainer.global_rank]
        count_on(pl_module, mine["counted"]["metrics"])
        if batches_follow(trainer):
            self._earlier_values = mine["counted"]["values"]
        else:
            log_again(trainer, mine["counted"])
        restore_random_state(mine["random"], trainer.strategy.root_device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remembers the moment at which a window begins."""
        self._validated = False
        self._steps_before = trainer.fit_loop.epoch_loop._batches_that_stepped
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._window = self._moment(trainer, place_of_a_window(trainer))

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Counts on from what was counted before the restart."""
        if self._earlier_values:
            add_earlier(trainer, self._earlier_values)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers the random states."""
        self._before_validation = RandomState.take(trainer.strategy.root_device)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers that the validation came to its end."""
        self._before_validation, self._validated = None, True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the limits back, if the epoch was only ended."""
        if self._ending:
            self._ending = False
            shift_limits(trainer, -1)

    # In checkpoints

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the state of all processes; the rows are on disk before the checkpoint that counts them."""
        if inside_a_window(trainer) and self._window:
            moment = self._window
        else:
            moment = self._moment(trainer, present_place(trainer, self._steps_before, self._validated))
        if trainer.is_global_zero:
            self.metrics.write()
        mine = {"random": moment.random.plain(), "counted": moment.counted}
        processes: list[Any] = [mine]
        if trainer.world_size > 1:
            processes = [None] * trainer.world_size
            torch.distributed.all_gather_object(processes, mine)
        checkpoint[STATE] = {"place": asdict(moment.place), "processes": processes, "rows": moment.rows}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keeps the state until training starts.

        Raises:
            UserError: The checkpoint has none.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if STATE not in checkpoint:
            raise UserError(
                "The checkpoint was written by an earlier version of peft_lightning and does not say where in training "
                "the run was; start it anew in another --run_dir, or go on with the version that wrote it."
            )
        self._resumed = checkpoint[STATE]
        start_even_at_the_limit(trainer)

    def _moment(self, trainer: Trainer, place: Place) -> Moment:
        random = self._before_validation or RandomState.take(trainer.strategy.root_device)
        return Moment(place, random, counted(trainer) if place.batches else NOTHING, self.metrics.place())
