"""LightningCLI's fit, validate, test and predict on run directories."""

import contextlib
import logging
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import peft_lightning.data
import peft_lightning.methods  # noqa: F401  so that `--model LoRA` finds the class by its bare name
from peft_lightning.callbacks import (
    CheckpointFiles,
    ExactResume,
    MetricsFile,
    NonFiniteGuard,
    PredictionWriter,
    RunRecorder,
    StopOnSignal,
    TimeLimit,
    TimeLimitReached,
    checkpoint_callbacks,
    tell,
)
from peft_lightning.complaints import check_leftovers
from peft_lightning.data import Benchmark
from peft_lightning.errors import OutOfMemoryError, UserError
from peft_lightning.help import DESCRIPTION, HelpFormatter
from peft_lightning.memory import is_out_of_memory
from peft_lightning.methods import AdaptationMethod, read_checkpoint
from peft_lightning.out_of_memory import check_halving, out_of_memory, use_halves
from peft_lightning.processes import end_launched
from peft_lightning.runs import RunDirectory, default_run_directory, print_summary
from peft_lightning.runs.directory import differences
from peft_lightning.storage import generations

log = logging.getLogger(__name__)


class FinishedError(Exception):
    """The run that `fit` was asked for is done already."""


class CLI(LightningCLI):
    """LightningCLI whose runs live in run directories."""

    recorder: RunRecorder | None = None

    def __init__(self, args: list[str]):
        self.verb = args[0]
        usage = {verb: f"On a run: peft-lightning {verb} RUN [options]" for verb in ("validate", "test")}
        usage["fit"] = "Train a method, or go on with a run that was interrupted."
        usage["predict"] = "On a run: peft-lightning predict RUN [--input FILE --output FILE]"
        # Lightning runs the verb in its constructor; what is held meanwhile is let go of however that ends.
        with ExitStack() as self.held:
            super().__init__(
                AdaptationMethod,
                Benchmark,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=None,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                # Our checkpoints name their class themselves; Lightning's way would import what a file asks for.
                load_from_checkpoint_support=False,
                trainer_defaults={
                    "gradient_clip_val": 1.0,
                    "log_every_n_steps": 10,
                    # The DataModules share examples among devices themselves, each example once.
                    "use_distributed_sampler": False,
                },
                parser_kwargs={"description": DESCRIPTION, "exit_on_error": False, "formatter_class": HelpFormatter}
                | {verb: {"description": usage[verb], "exit_on_error": False} for verb in self.subcommands()},
                args=args,
            )

    # Options

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The verb that is asked for, if it is one: to set up the options of all takes four times as long."""
        verbs = LightningCLI.subcommands()
        return {self.verb: verbs[self.verb]} if self.verb in verbs else verbs

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options of a run, and links what would otherwise be named twice."""
        parser.add_argument(
            "--run_dir", type=str | None, default=None, help="Run directory; by default runs/DATA/METHOD/HASH/seedN."
        )
        parser.add_argument(
            "--checkpoint_every_n_steps",
            type=int | None,
            default=None,
            help="Write checkpoints/last.ckpt after so many steps; by default after every epoch.",
        )
        parser.add_argument(
            "--halve_batch_if_out_of_memory",
            type=bool,
            default=False,
            help="When fit is out of memory before its first checkpoint, begin again with half the batch_size and "
            "twice the accumulate_grad_batches; result.json says what was used.",
        )
        parser.link_arguments("model.init_args.backbone", "data.init_args.backbone")
        parser.link_arguments("model.init_args.revision", "data.init_args.backbone_revision")
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)
        parser.link_arguments("data.task_description", "model.init_args.task", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses without Lightning's warning that arguments were given from Python: `main` always does."""
        self.config = parser.parse_args(args)
        config = self.config[self.config.subcommand]
        check_leftovers(args if isinstance(args, list) else [], config)
        if not isinstance(config.seed_everything, bool) and config.seed_everything < 0:
            raise UserError(f"seed_everything is {config.seed_everything}; give a number of at least 0.")
        if config.checkpoint_every_n_steps is not None and config.checkpoint_every_n_steps < 1:
            raise UserError(f"checkpoint_every_n_steps is {config.checkpoint_every_n_steps}; give at least 1.")
        if config.weights_only is False:
            raise UserError("weights_only is false; leave it out: nothing in a checkpoint is ever executed here.")
        check_halving(config)

    def _parse_ckpt_path(self) -> None:
        """Does nothing: Lightning would let the options inside a checkpoint file win over those given, silently."""

    # The run directory

    def before_instantiate_classes(self) -> None:
        """Finds the run directory, and refuses one that holds another run before anything is loaded."""
        config = self.config[self.subcommand]
        _make_paths_absolute(config)
        self.options = self._plain(config)
        self.run = RunDirectory(config.run_dir or default_run_directory(self.options))
        config.run_dir = self.options["run_dir"] = str(self.run.path)
        if self.subcommand == "fit":
            _check_length(config.trainer)
            if not config.trainer.fast_dev_run:
                self._check_run()
                use_halves(config, self.run)
        elif self.subcommand == "predict":
            self.run.check_writable()
            if self.run.predictions.exists():
                raise UserError(f"{self.run.predictions} exists; move it away first.")
            self._claim_run()
        elif self._is_of_the_run():
            self._claim_run()

    def _check_run(self) -> None:
        self.run.check_writable()
        self.run.check_config(self.options)
        if self.run.is_done:
            raise FinishedError(f"The run in {self.run.path} is done already; nothing is left to train.")
        self._claim_run()

    def _claim_run(self) -> None:
        """Keeps others from writing into the run directory; of the processes of one run the first does."""
        node = int(os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or 0)
        if rank_zero_only.rank == 0 and node == 0:  # type: ignore[attr-defined]
            self.held.enter_context(self.run.claimed())

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds the loggers and callbacks of a run directory to those of the configuration."""
        options = self._get(self.config_init, "trainer")
        callbacks = _as_list(options.callbacks)
        logger: list[Logger] | bool = False
        if not options.fast_dev_run:
            config = yaml.safe_dump(self.options | {"ckpt_path": None, "weights_only": None}, sort_keys=False)
            seed = self.config[self.subcommand].seed_everything
            self.recorder = RunRecorder(self.run, config, seed, self._is_of_the_run(), options.deterministic)
            callbacks.append(self.recorder)
        if self.subcommand == "fit":
            metrics = MetricsFile(self.run)
            callbacks += self._training_callbacks(options, metrics)
            logger = [metrics, *self._loggers(options.logger)]
        elif self.subcommand == "predict":
            callbacks.append(PredictionWriter(self.run))
        plugins = [*_as_list(options.plugins), CheckpointFiles()]
        try:
            if self.subcommand == "fit" and options.max_time is not None:
                callbacks.append(TimeLimit(options.max_time))
            return super().instantiate_trainer(
                default_root_dir=str(self.run.path), callbacks=callbacks, logger=logger, plugins=plugins, **kwargs
            )
        except (TypeError, ValueError, RuntimeError, ImportError, MisconfigurationException) as error:
            raise UserError(f"The options --trainer.* cannot be used here: {str(error).splitlines()[0]}") from error

    def _training_callbacks(self, options: Namespace, metrics: MetricsFile) -> list[Callback]:
        self.signals = StopOnSignal()
        is_kept = options.enable_checkpointing is not False and not options.fast_dev_run
        is_guarded = any(isinstance(callback, NonFiniteGuard) for callback in _as_list(options.callbacks))
        return [
            # Before those that stop where a batch begins, so that what they save knows that place.
            *([ExactResume(metrics)] if is_kept else []),
            self.signals,
            *([] if is_guarded else [NonFiniteGuard()]),
            *(self._checkpoints() if is_kept else []),
        ]

    def _is_of_the_run(self) -> bool:
        """Whether an evaluation is of the run's own model and data, so that its metrics belong in `result.json`."""
        if self.subcommand == "fit":
            return True
        if not self.run.config.is_file() or self.config[self.subcommand].ckpt_path not in (None, "best"):
            return False
        counted = ("data.", "model.", "trainer.limit_", "trainer.fast_dev_run")
        return not any(key.startswith(counted) for key in differences(self.run.read_config(), self.options))

    def _checkpoints(self) -> list[Any]:
        task = self.datamodule.task_description
        every = self.config.fit.checkpoint_every_n_steps
        return list(checkpoint_callbacks(self.run, f"val/{task['monitor']}", task["mode"], every))

    def _loggers(self, configured: Any) -> list[Logger]:
        if configured is False:
            return []
        mine = TensorBoardLogger(self.run.path, name="tensorboard", version="", default_hp_metric=False)
        return [mine, *(_as_list(configured) if configured is not True else [])]

    # Before, during and after each verb

    def before_fit(self) -> None:
        """Goes on from the run's own newest checkpoint, if there is one."""
        options = self.config_init.fit
        if options.trainer.fast_dev_run:
            return
        newest, faults = self.run.newest_checkpoint()
        if newest:
            options.ckpt_path = str(newest)
        elif options.ckpt_path == "last":
            options.ckpt_path = None
        if options.ckpt_path is not None and "optimizer_states" not in (content := _read(options.ckpt_path)):
            raise UserError(f"{options.ckpt_path} holds weights only and cannot be gone on from; give a last.ckpt.")
        if self.trainer.is_global_zero:
            for path, fault in faults.items():
                moved = None if path == newest else generations.reject(path)
                log.warning(f"{path} {fault}{f' (moved to {moved.name})' if moved else ''}.")
            print(f"Run directory: {self.run.path}")
            if options.ckpt_path:
                print(f"Going on from {options.ckpt_path}, step {content['global_step']}")

    def fit(self, model: LightningModule, datamodule: LightningDataModule, **options: Any) -> None:
        """Trains; a signal ends it with a checkpoint and an exit status of its own."""
        with self.signals.handling():
            try:
                with contextlib.suppress(TimeLimitReached):
                    self.trainer.fit(model, datamodule=datamodule, **options)
            except ValueError as error:
                # The one option that Lightning can only check once it knows the number of batches.
                if "`val_check_interval`" in str(error):
                    raise UserError(f"--trainer.val_check_interval: {str(error).strip()}") from error
                raise
            except SystemExit as stop:
                # The first process tells; Lightning kills it if another one fails.
                raise tell(stop, self.run) if self.trainer.is_global_zero else SystemExit(0) from stop

    def _run_subcommand(self, subcommand: str) -> None:
        """Names what is otherwise a long message of an allocator, and leaves no process waiting for a failed one."""
        try:
            super()._run_subcommand(subcommand)
        except Exception as error:
            end_launched(self.trainer)
            if is_out_of_memory(error):
                raise out_of_memory(subcommand, self.config[subcommand], self.trainer, self.run, error) from error
            if self.recorder and self.recorder.is_out_of_memory_elsewhere:
                # That process tells; what is wrong here is only that it is gone.
                raise SystemExit(OutOfMemoryError.exit_status) from error
            raise

    def before_validate(self) -> None:
        """Evaluates the best checkpoint unless another one is given."""
        self._choose_checkpoint()

    def before_test(self) -> None:
        """Evaluates the best checkpoint unless another one is given."""
        self._choose_checkpoint()

    def before_predict(self) -> None:
        """Predicts with the best checkpoint unless another one is given."""
        self._choose_checkpoint()
        self.config_init.predict.return_predictions = False

    def after_fit(self) -> None:
        """Prints the result."""
        self._print_summary()

    def after_validate(self) -> None:
        """Prints the result."""
        self._print_summary()

    def after_test(self) -> None:
        """Prints the result."""
        self._print_summary()

    def after_predict(self) -> None:
        """Says where the predictions are."""
        if self.trainer.is_global_zero:
            print(f"Predictions: {self.run.predictions}")

    def _choose_checkpoint(self) -> None:
        options = self.config_init[self.subcommand]
        if options.ckpt_path in (None, "best"):
            options.ckpt_path = str(self.run.trained_checkpoint())
        elif options.ckpt_path == "last":
            options.ckpt_path = str(self.run.last_checkpoint)
        _read(options.ckpt_path)

    def _print_summary(self) -> None:
        if not self.trainer.is_global_zero:
            return
        if not self._is_of_the_run():
            print(f"Not recorded in {self.run.result}: these are other data, weights or limits than those of the run.")
        elif self.run.result.is_file():
            print_summary(self.run)

    def _plain(self, config: Namespace) -> dict[str, Any]:
        """The configuration as plain values, without what is linked."""
        return yaml.safe_load(self._parser(self.subcommand).dump(config, skip_unset=False))


def _check_length(trainer: Namespace) -> None:
    """Refuses a run whose length is not said, or is nothing."""
    if trainer.max_epochs is None and trainer.max_steps == -1 and trainer.max_time is None and not trainer.fast_dev_run:
        raise UserError("How long to train is not said: give --trainer.max_epochs or --trainer.max_steps.")
    for option in ("max_epochs", "max_steps", "limit_train_batches"):
        if trainer[option] == 0:
            raise UserError(f"--trainer.{option} is 0, so that nothing would be trained; give more.")


def _make_paths_absolute(config: Namespace) -> None:
    """Lets a run be used from any working directory."""
    for key in ("model.init_args.backbone", "data.init_args.backbone", "data.init_args.source"):
        value = config.get(key)
        if isinstance(value, str) and Path(value).exists():
            config[key] = str(Path(value).absolute())


def _read(checkpoint: str) -> dict[str, Any]:
    if not Path(checkpoint).is_file():
        raise UserError(f"Checkpoint {checkpoint} does not exist; give --ckpt_path best, last or a file.")
    return read_checkpoint(checkpoint)


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]
