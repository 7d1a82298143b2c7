"""Where in training a run stands, and how Lightning's loops are put there again.

Lightning (2.6) restores its counters as they were when a checkpoint was written, and guesses from them what of the
last batch was done already. Depending on the moment it leaves out a row of metrics or a validation, or counts a step or
an epoch twice. Here a moment is described by what was done and what is still due, and the loops are set so that they do
just that. All that is private to Lightning is in this file and in `epoch_metrics.py`.
"""

from dataclasses import dataclass, field
from typing import Any

from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch import Trainer
from lightning.pytorch.loops import evaluation_loop, fit_loop, training_epoch_loop


@dataclass(frozen=True)
class Place:
    """A place between two batches, behind an optimizer step.

    Attributes:
        epochs: Number of epochs that are done.
        batches: Number of batches of the present epoch that are done; 0 between two epochs.
        all_batches: Number of batches that are done since the start.
        steps: The number of the next row of metrics.
        validation: Whether a validation is due before the next batch.
        row: Metrics that were measured and are not logged yet.
        row_step: The number of their row.
    """

    epochs: int
    batches: int
    all_batches: int
    steps: int
    validation: bool = False
    row: dict[str, float] = field(default_factory=dict)
    row_step: int = 0


def inside_a_window(trainer: Trainer) -> bool:
    """Whether gradients are being computed or accumulated for an optimizer step to come."""
    batches = _counts(trainer.fit_loop.epoch_loop.batch_progress)
    is_over = batches.ready == batches.processed and not trainer.fit_loop.epoch_loop._should_accumulate()
    return not _between_epochs(trainer) and not is_over


def place_of_a_window(trainer: Trainer) -> Place:
    """Where training stands when the first batch of a window begins."""
    return Place(*_done(trainer), trainer.fit_loop.epoch_loop._batches_that_stepped)


def present_place(trainer: Trainer, steps_before: int, validated: bool) -> Place:
    """Where training stands, outside of a window.

    Args:
        trainer: The trainer.
        steps_before: The number of the next row of metrics when the last batch began.
        validated: Whether a validation has come to its end since.
    """
    fit, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    epochs, batches, all_batches = _done(trainer)
    if _between_epochs(trainer):
        steps = loop._batches_that_stepped
        place = Place(epochs, 0, all_batches, steps, row_step=steps - 1)
        # The metrics of an epoch are logged after the last hook that writes checkpoints.
        progress = _counts(fit.epoch_progress)
        is_logged = progress.completed == progress.processed
    else:
        due = not validated and loop._should_check_val_fx(fit._data_fetcher)  # type: ignore[arg-type]
        place = Place(epochs, batches, all_batches, steps_before + 1, due, row_step=steps_before)
        # So are those of a step.
        progress = _counts(loop.batch_progress)
        is_logged = progress.completed == progress.processed or not trainer._logger_connector.should_update_logs
    return place if is_logged else _with_row(place, trainer)


def go_to(place: Place, trainer: Trainer) -> None:
    """Sets the loops, before their first iteration, to go on from a place."""
    fit, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    inside = place.batches > 0
    for epochs in (fit.epoch_progress.total, fit.epoch_progress.current):
        _set(epochs, started=place.epochs + inside, done=place.epochs)
    _set(loop.batch_progress.total, place.all_batches, place.all_batches)
    _set(loop.batch_progress.current, place.batches, place.batches)
    loop.batch_progress.is_last_batch = place.batches == trainer.num_training_batches
    _go_to_batch(place, trainer)

    # Only a loop that restarts keeps its counters; the outer one would skip schedules for the rest of the epoch.
    fit._restarting, loop._restarting, loop.val_loop._restarting = False, inside, place.validation
    fit._restart_stage = _FIT.RESTARTED_MID_EPOCH if inside else _FIT.NONE
    loop._restart_stage = _BATCHES.RESTARTED_ON_LAST
    loop.val_loop._restart_stage = _VALIDATION.RESTARTED_MID_EVALUATION if place.validation else _VALIDATION.NONE
    if place.validation:
        loop.val_loop.batch_progress.current.reset()
    # Where a validation belongs behind the last batch, Lightning ends that batch once more, with or without it.
    again = inside and loop._should_check_val_fx(fit._data_fetcher)  # type: ignore[arg-type]
    loop._batches_that_stepped = place.steps - again


def start_even_at_the_limit(trainer: Trainer) -> None:
    """Lets the training loop run where nothing is left but what follows the last step.

    Lightning does not even start a loop that stands at its limit, whatever is still due there. The limits are raised
    only while it looks: many others read them, schedules for example.
    """
    fit: Any = trainer.fit_loop
    run, reset = fit.run, fit.reset

    def run_with_raised_limits() -> None:
        del fit.run
        fit.reset = reset_with_own_limits
        shift_limits(trainer, +1)
        run()

    def reset_with_own_limits() -> None:
        del fit.reset
        shift_limits(trainer, -1)
        reset()

    fit.run = run_with_raised_limits


def shift_limits(trainer: Trainer, by: int) -> None:
    """Moves `max_epochs` and `max_steps`, where they are set."""
    fit, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    if fit.max_epochs is not None and fit.max_epochs >= 0:
        fit.max_epochs += by
    if loop.max_steps >= 0:
        loop.max_steps += by


def all_steps_are_done(trainer: Trainer) -> bool:
    """Whether `max_steps` allows for no further optimizer step."""
    return 0 <= trainer.max_steps <= trainer.global_step


def batches_follow(trainer: Trainer) -> bool:
    """Whether the present epoch has a further batch."""
    fetcher: Any = trainer.fit_loop._data_fetcher
    return not fetcher.done


def end_batches(trainer: Trainer) -> None:
    """Lets the present epoch have no further batch; what is due behind the last one is done."""
    fetcher: Any = trainer.fit_loop._data_fetcher
    fetcher.done = True


def _go_to_batch(place: Place, trainer: Trainer) -> None:
    """Lets the batches begin behind the last one; what worker processes loaded already is dropped."""
    loader: Any = trainer.train_dataloader
    loader.batch_sampler.start_at(place.epochs, place.batches)
    fetcher: Any = trainer.fit_loop._data_fetcher
    iter(fetcher)
    fetcher.done = place.batches >= fetcher.length


def _between_epochs(trainer: Trainer) -> bool:
    epochs = _counts(trainer.fit_loop.epoch_progress)
    return epochs.started == epochs.processed


def _done(trainer: Trainer) -> tuple[int, int, int]:
    """Epochs, batches of this epoch, batches of all epochs."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress
    return _counts(trainer.fit_loop.epoch_progress).processed, batches.current.processed, batches.total.processed


def _counts(progress: Any) -> Any:
    """Those of this run or epoch: how many are ready, started, processed, completed."""
    return progress.current


def _with_row(place: Place, trainer: Trainer) -> Place:
    row = convert_tensors_to_scalars(trainer._logger_connector.metrics["log"])
    row = {**row, "epoch": trainer.current_epoch} if row else {}
    return Place(**(vars(place) | {"row": row}))


def _set(progress: Any, started: int, done: int) -> None:
    progress.ready = progress.started = started
    progress.processed = progress.completed = done


_FIT, _BATCHES, _VALIDATION = fit_loop.RestartStage, training_epoch_loop.RestartStage, evaluation_loop.RestartStage
