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
from jsonargparse import ArgumentError, DefaultHelpFormatter
from lightning.pytorch import Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, TensorBoardLogger

import peft_lightning.data
import peft_lightning.methods  # noqa: F401  so that `--model LoRA` finds the class by its bare name
from peft_lightning.callbacks import MetricsFile, PredictionWriter, RunRecorder, checkpoint_callbacks
from peft_lightning.complaints import complaint
from peft_lightning.data import TextDataModule
from peft_lightning.errors import UserError
from peft_lightning.methods import AdaptationMethod
from peft_lightning.runs import RunDirectory, comparison_table, default_run_directory, predict_file, print_summary

DESCRIPTION = """Parameter-efficient fine-tuning of Hugging Face models.

On a finished run directory RUN:
  peft-lightning test RUN                               evaluate its best checkpoint on the test split
  peft-lightning validate RUN                           the same on the validation split
  peft-lightning predict RUN --input FILE --output FILE label the texts of a file
  peft-lightning summary RUN [RUN ...]                  print metrics, parameters and costs, of several as a table
"""
RUN_VERBS = ("validate", "test", "predict", "summary")


class FinishedError(Exception):
    """The run that `fit` was asked for is done already."""


class HelpFormatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description as they are written."""


class CLI(LightningCLI):
    """LightningCLI whose runs live in run directories."""

    def __init__(self, args: ArgsType = None):
        super().__init__(
            AdaptationMethod,
            TextDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=RunRecorder,
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
            | {verb: {"exit_on_error": False} for verb in self.subcommands()},
            args=args,
        )

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
        parser.link_arguments("seed_everything", "data.init_args.seed")
        parser.link_arguments("data.task_description", "model.init_args.task", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses without Lightning's warning that arguments were given from Python: `main` always does."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Does nothing: Lightning would let the options inside a checkpoint file win over those given, silently."""

    def before_instantiate_classes(self) -> None:
        """Finds the run directory, and refuses one that holds another run before anything is loaded."""
        config = self.config[self.subcommand]
        options = yaml.safe_load(self._parser(self.subcommand).dump(config, skip_unset=False))
        self.run = RunDirectory(config.run_dir or default_run_directory(options))
        config.run_dir = str(self.run.path)
        self.save_config_kwargs = {"run": self.run}
        if self.subcommand == "fit" and not config.trainer.fast_dev_run:
            if config.trainer.max_epochs is None and config.trainer.max_steps == -1 and config.trainer.max_time is None:
                raise UserError("How long to train is not said: give --trainer.max_epochs or --trainer.max_steps.")
            self.run.check_config(options)
            if self.run.is_done:
                raise FinishedError(f"The run in {self.run.path} is done already; nothing is left to train.")
        if self.subcommand in ("fit", "predict"):
            self.run.check_writable()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds the loggers and callbacks of a run directory to those of the configuration."""
        options = self._get(self.config_init, "trainer")
        callbacks = _as_list(options.callbacks)
        logger: list[Logger] | bool = False
        if self.subcommand == "fit":
            callbacks += self._checkpoints() if options.enable_checkpointing is not False else []
            logger = [MetricsFile(self.run), *self._loggers(options.logger)]
        elif self.subcommand == "predict":
            callbacks.append(PredictionWriter(self.run))
        return super().instantiate_trainer(
            default_root_dir=str(self.run.path), callbacks=callbacks, logger=logger, **kwargs
        )

    def before_fit(self) -> None:
        """Goes on from the last checkpoint, if there is one."""
        chosen = self.config_init.fit.ckpt_path
        if chosen in (None, "last"):
            last = self.run.last_checkpoint
            self.config_init.fit.ckpt_path = str(last) if last.is_file() else None

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
        if not Path(options.ckpt_path).is_file():
            raise UserError(f"Checkpoint {options.ckpt_path} does not exist; give --ckpt_path best, last or a file.")

    def _checkpoints(self) -> list[Any]:
        task = self.datamodule.task_description
        every = self.config.fit.checkpoint_every_n_steps
        return list(checkpoint_callbacks(self.run, f"val/{task['monitor']}", task["mode"], every))

    def _loggers(self, configured: Any) -> list[Logger]:
        if configured is False:
            return []
        mine = TensorBoardLogger(self.run.path, name="tensorboard", version="", default_hp_metric=False)
        return [mine, *(_as_list(configured) if configured is not True else [])]

    def _print_summary(self) -> None:
        if self.trainer.is_global_zero and self.run.result.is_file():
            print_summary(self.run)


def main(args: Sequence[str] | None = None) -> None:
    """Runs one command; on bad input prints one sentence and exits with status 1, or 2 for options.

    Args:
        args: The command line without the program's name; by default that of the process.
    """
    arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
    # The console script, unlike `python -m`, does not look for users' own methods in the working directory.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
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
    if verb == "summary":
        parser = argparse.ArgumentParser(
            "peft-lightning summary", description="Print the result of a run, or compare several."
        )
        parser.add_argument("runs", metavar="RUN", nargs="+", help="run directory; several give a table")
        runs = [RunDirectory.existing(path) for path in parser.parse_args(rest).runs]
        if len(runs) == 1:
            print_summary(runs[0])
        else:
            print(comparison_table(runs))
    elif verb == "predict" and any(argument.split("=")[0] == "--input" for argument in rest):
        _predict_file(rest)
    elif verb in RUN_VERBS and rest and not rest[0].startswith("-"):
        run = RunDirectory.existing(rest[0])
        CLI([verb, "--config", str(run.config), "--run_dir", rest[0], *rest[1:]])
    else:
        CLI(arguments)


def _predict_file(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("peft-lightning predict", description="Label the texts of a file.")
    parser.add_argument("run", metavar="RUN", help="run directory")
    parser.add_argument(
        "--input", required=True, type=Path, help=".txt with a text a line, .csv, .tsv, .jsonl, .parquet"
    )
    parser.add_argument("--output", required=True, type=Path, help="JSON lines to write: text, label, scores")
    parser.add_argument("--text_column", help="column of the text; by default the one of the training data")
    parser.add_argument("--text_pair_column", help="column of the second text, for pairs")
    parser.add_argument("--batch_size", type=int, default=32, help="texts that are computed at once")
    parser.add_argument("--device", help="for example cuda:0; by default a GPU if there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    options = parser.parse_args(arguments)
    count = predict_file(
        RunDirectory.existing(options.run),
        options.input,
        options.output,
        options.text_column,
        options.text_pair_column,
        options.batch_size,
        options.device,
        options.overwrite,
    )
    print(f"{count} predictions: {options.output}")


def _quiet_advice() -> None:
    """Leaves out advice that does not apply here, so that what is printed is worth reading."""
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*custom batch sampler `EvaluationBatches`.*",
        ".*isinstance.treespec, LeafSpec.* is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]
