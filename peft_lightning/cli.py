"""The command line: LightningCLI's fit, validate, test and predict, and the verbs on a finished run."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, DefaultHelpFormatter, Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

import peft_lightning.data
import peft_lightning.methods  # noqa: F401  so that `--model LoRA` finds the class by its bare name
from peft_lightning.callbacks import MetricsFile, PredictionWriter, RunRecorder, checkpoint_callbacks
from peft_lightning.complaints import check_arguments, check_leftovers, complaint
from peft_lightning.data import Benchmark
from peft_lightning.errors import UserError
from peft_lightning.methods import AdaptationMethod, read_checkpoint
from peft_lightning.runs import RunDirectory, default_run_directory, print_summary
from peft_lightning.runs.directory import comparable
from peft_lightning.verbs import OTHER_VERBS, label_file

VERBS = ("fit", "validate", "test", "predict", *OTHER_VERBS)
DESCRIPTION = """Parameter-efficient fine-tuning of Hugging Face models.

On a finished run directory RUN:
  peft-lightning test RUN                               evaluate its best checkpoint on the test split
  peft-lightning validate RUN                           the same on the validation split
  peft-lightning predict RUN                            label the test split
  peft-lightning predict RUN --input FILE --output FILE label the texts of a file
  peft-lightning summary RUN [RUN ...]                  print metrics, parameters and costs, of several as a table
  peft-lightning glue-submission --output ZIP RUN ...   put predictions of GLUE's tasks together for its server

On data:
  peft-lightning check-data --data CLASS [--data.OPTION VALUE ...]
                                                        check every row; print sizes, labels and lengths

On a grid of runs:
  peft-lightning study FILE                             run what is missing, write table and figure
"""
# A run that was trained on a cluster is evaluated on this machine unless told otherwise.
HERE = ("--trainer.accelerator=auto", "--trainer.strategy=auto", "--trainer.devices=1", "--trainer.num_nodes=1")
EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143


class FinishedError(Exception):
    """The run that `fit` was asked for is done already."""


class HelpFormatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description as they are written."""


class CLI(LightningCLI):
    """LightningCLI whose runs live in run directories."""

    def __init__(self, args: list[str]):
        self.verb = args[0]
        usage = {verb: f"On a run: peft-lightning {verb} RUN [options]" for verb in ("validate", "test")}
        usage["fit"] = "Train a method, or go on with a run that was interrupted."
        usage["predict"] = "On a run: peft-lightning predict RUN [--input FILE --output FILE]"
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
        elif self.subcommand == "predict":
            self.run.check_writable()
            if self.run.predictions.exists():
                raise UserError(f"{self.run.predictions} exists; move it away first.")

    def _check_run(self) -> None:
        self.run.check_writable()
        self.run.check_config(self.options)
        if self.run.is_done:
            raise FinishedError(f"The run in {self.run.path} is done already; nothing is left to train.")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds the loggers and callbacks of a run directory to those of the configuration."""
        options = self._get(self.config_init, "trainer")
        callbacks = _as_list(options.callbacks)
        logger: list[Logger] | bool = False
        if not options.fast_dev_run:
            config = yaml.safe_dump(self.options | {"ckpt_path": None, "weights_only": None}, sort_keys=False)
            seed = self.config[self.subcommand].seed_everything
            callbacks.append(RunRecorder(self.run, config, seed, self._is_of_the_run()))
        if self.subcommand == "fit":
            if options.enable_checkpointing is not False and not options.fast_dev_run:
                callbacks += self._checkpoints()
            logger = [MetricsFile(self.run), *self._loggers(options.logger)]
        elif self.subcommand == "predict":
            callbacks.append(PredictionWriter(self.run))
        try:
            return super().instantiate_trainer(
                default_root_dir=str(self.run.path), callbacks=callbacks, logger=logger, **kwargs
            )
        except (TypeError, ValueError, RuntimeError, ImportError, MisconfigurationException) as error:
            raise UserError(f"The options --trainer.* cannot be used here: {str(error).splitlines()[0]}") from error

    def _is_of_the_run(self) -> bool:
        """Whether an evaluation is of the run's own model and data, so that its metrics belong in `result.json`."""
        if self.subcommand == "fit":
            return True
        if not self.run.config.is_file() or self.config[self.subcommand].ckpt_path not in (None, "best"):
            return False
        before, now = comparable(self.run.read_config()), comparable(self.options)
        counted = ("data.", "model.", "trainer.limit_", "trainer.fast_dev_run")
        return all(before.get(key) == now.get(key) for key in before.keys() | now.keys() if key.startswith(counted))

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
        newest = self.run.newest_checkpoint()
        if newest:
            options.ckpt_path = str(newest)
        elif options.ckpt_path == "last":
            options.ckpt_path = None
        if options.ckpt_path is not None and "optimizer_states" not in _read(options.ckpt_path):
            raise UserError(f"{options.ckpt_path} holds weights only and cannot be gone on from; give a last.ckpt.")
        if self.trainer.is_global_zero:
            print(f"Run directory: {self.run.path}")
            if options.ckpt_path:
                print(f"Going on from {options.ckpt_path}")

    def fit(self, model: LightningModule, datamodule: LightningDataModule, **options: Any) -> None:
        """Trains; after a signal the exit status says so, where Lightning's would be 0 or 1."""
        try:
            self.trainer.fit(model, datamodule=datamodule, **options)
        except ValueError as error:
            # The one option that Lightning can only check once it knows the number of batches.
            if "`val_check_interval`" in str(error):
                raise UserError(f"--trainer.val_check_interval: {str(error).strip()}") from error
            raise
        except SystemExit as stop:
            if self.trainer.is_global_zero:
                print(f"Interrupted; the same command goes on from {self.run.path}.", file=sys.stderr)
            raise SystemExit(EXIT_TERMINATED if isinstance(stop, SIGTERMException) else EXIT_INTERRUPTED) from stop

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


def main(args: Sequence[str] | None = None) -> None:
    """Runs one command; on bad input prints one sentence and exits with status 1, or 2 for options.

    Args:
        args: The command line without the program's name; by default that of the process.
    """
    arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
    # The console script, unlike `python -m`, does not look for users' own methods in the working directory.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    _quiet_advice()
    try:
        _dispatch(arguments)
    except FinishedError as finished:
        print(finished)
    except Exception as error:
        sentence = complaint(error)
        if sentence is None:
            raise
        print(f"peft-lightning: error: {sentence}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ArgumentError) else 1)


def _dispatch(arguments: list[str]) -> None:
    verb, *rest = arguments
    if not verb.startswith("-") and verb not in VERBS:
        raise UserError(f"There is no verb '{verb}'; the verbs are {', '.join(VERBS)}.")
    if verb in OTHER_VERBS:
        OTHER_VERBS[verb](rest)
    elif verb == "predict" and any(argument.split("=")[0] == "--input" for argument in rest):
        label_file(rest)
    elif verb in VERBS[1:] and rest and not rest[0].startswith("-"):
        run = RunDirectory.existing(rest[0])
        run.read_config()
        check_arguments(rest[1:])
        CLI([verb, "--config", str(run.config), "--run_dir", rest[0], *HERE, *rest[1:]])
    else:
        check_arguments(rest)
        CLI(arguments)


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


def _quiet_advice() -> None:
    """Leaves out advice that does not apply here, so that what is printed is worth reading."""
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*custom batch sampler `EvaluationBatches`.*",
        ".*isinstance.treespec, LeafSpec.* is deprecated.*",
        ".*callbacks used to create the checkpoint.*",
    ):
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]
