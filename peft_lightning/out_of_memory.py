"""A run that needs more memory than there is: what would help, and half the batch in twice as many parts of a step."""

import gc
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer

from peft_lightning.errors import OutOfMemoryError, UserError
from peft_lightning.memory import peak_memory
from peft_lightning.runs import RunDirectory

log = logging.getLogger(__name__)

# What Lightning counts in batches.
_IN_BATCHES = ("val_check_interval", "limit_train_batches", "overfit_batches")


def with_halves(start: Callable[[], Any]) -> None:
    """Starts a run, and again as long as it is out of memory and may try with half the batch."""
    while True:
        try:
            start()
            return
        except OutOfMemoryError as error:
            if not error.tries_again:
                raise
            log.warning(f"{error} Trying again with half the batch.")
        # What the failed start held goes, with the cycles between trainer and model, before the next one begins.
        gc.collect()
        torch.cuda.empty_cache()


def check_halving(config: Namespace) -> None:
    """Checks that a run which is to halve its batches could.

    Raises:
        UserError: It could not.
    """
    size = config.data.init_args.batch_size
    if config.halve_batch_if_out_of_memory and size % 2:
        raise UserError(
            f"halve_batch_if_out_of_memory is true and batch_size is {size}, which has no half; give an even one."
        )


def use_halves(config: Namespace, run: RunDirectory) -> None:
    """Sets the options of `fit` to the batches that an earlier start of the run had room for."""
    used = run.read_result().get("used")
    if not used:
        return
    parts = config.data.init_args.batch_size // used["batch_size"]
    log.warning(
        f"An earlier start of this run was out of memory: each batch of {config.data.init_args.batch_size} is trained "
        f"as {parts} of {used['batch_size']} (accumulate_grad_batches {used['accumulate_grad_batches']})."
    )
    config.data.init_args.batch_size = used["batch_size"]
    config.trainer.accumulate_grad_batches = used["accumulate_grad_batches"]
    for option in _IN_BATCHES:
        if isinstance(value := config.trainer.get(option), int):
            config.trainer[option] = parts * value


def out_of_memory(verb: str, config: Namespace, trainer: Trainer, run: RunDirectory, error: Exception) -> Exception:
    """Names the error; where `fit` may try again with half the batch, notes that in `result.json`.

    Args:
        verb: `fit`, `validate`, `test` or `predict`.
        config: Its options, as used.
        trainer: Where it happened.
        run: The run.
        error: What happened.
    """
    step = f" at step {trainer.global_step}" if verb == "fit" else ""
    said = str(error).strip().splitlines() or [type(error).__name__]
    where = "the GPU" if "cuda" in str(trainer.strategy.root_device) else "this process"
    sentence = (
        f"Out of memory{step}: {said[0]} Peak of {where}: {peak_memory() / 2**20:,.0f} MiB. These would help: "
        f"{'; '.join(_advice(verb, config))}."
    )
    named = OutOfMemoryError(sentence)
    if verb == "fit" and run.read_result().get("status") == OutOfMemoryError.status:
        run.update_result({"error": sentence})
        obstacle = _obstacle(config, trainer, run)
        if not config.halve_batch_if_out_of_memory:
            return named
        if obstacle:
            return OutOfMemoryError(f"{sentence} The batch cannot be halved: {obstacle}.")
        halves = {
            "batch_size": config.data.init_args.batch_size // 2,
            "accumulate_grad_batches": 2 * config.trainer.accumulate_grad_batches,
        }
        run.update_result({"used": halves})
        named.tries_again = True
    return named


def _obstacle(config: Namespace, trainer: Trainer, run: RunDirectory) -> str | None:
    size = config.data.init_args.batch_size
    if size % 2:
        return f"it is {size}"
    if trainer.world_size > 1:
        return "there are several processes, of which only one may have noticed"
    if trainer.ckpt_path or run.last_checkpoint.is_file():
        return "the run has trained batches of this size already; begin anew with a smaller one in another --run_dir"
    return None


def _advice(verb: str, config: Namespace) -> list[str]:
    size, parts = config.data.init_args.batch_size, config.trainer.accumulate_grad_batches or 1
    model: Mapping[str, Any] = config.model.init_args
    advice = []
    if size > 1 and verb != "fit":
        advice.append(f"--data.batch_size {size // 2} (it is {size})")
    elif size > 1 and size % 2 == 0:
        advice.append(
            f"--data.batch_size {size // 2} (it is {size}) with --trainer.accumulate_grad_batches {2 * parts}, the "
            "same batch in twice as many parts, which --halve_batch_if_out_of_memory true does by itself"
        )
    elif size > 1:
        advice.append(f"a smaller --data.batch_size (it is {size})")
    advice.append(f"a smaller --data.max_length (it is {config.data.init_args.max_length})")
    if verb == "fit" and not model.get("gradient_checkpointing"):
        advice.append("--model.gradient_checkpointing true")
    if config.trainer.precision in (None, 32, "32", "32-true"):
        advice.append("--trainer.precision bf16-mixed")
    return advice
