"""The command line: which verb is asked for, and what is said when it fails."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence

from lightning.pytorch.utilities import rank_zero_only

from peft_lightning.ablation import ablate
from peft_lightning.complaints import check_arguments, complaint, exit_status
from peft_lightning.errors import NonFiniteError, UserError
from peft_lightning.out_of_memory import with_halves
from peft_lightning.run_cli import CLI, FinishedError
from peft_lightning.runs import RunDirectory
from peft_lightning.verbs import OTHER_VERBS, label_file

VERBS = ("fit", "validate", "test", "predict", "ablate", *OTHER_VERBS)
# A run that was trained on a cluster is evaluated on this machine unless told otherwise.
HERE = ("--trainer.accelerator=auto", "--trainer.strategy=auto", "--trainer.devices=1", "--trainer.num_nodes=1")


def main(args: Sequence[str] | None = None) -> None:
    """Runs one command; on bad input prints one sentence and exits with a status that is not 0.

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
        # What all processes of a run have decided, the first one tells; Lightning kills it if another one fails.
        if isinstance(error, NonFiniteError) and rank_zero_only.rank:  # type: ignore[attr-defined]
            sys.exit(0)
        print(f"peft-lightning: error: {sentence}", file=sys.stderr)
        sys.exit(exit_status(error))


def _dispatch(arguments: list[str]) -> None:
    verb, *rest = arguments
    if not verb.startswith("-") and verb not in VERBS:
        raise UserError(f"There is no verb '{verb}'; the verbs are {', '.join(VERBS)}.")
    if verb in OTHER_VERBS:
        OTHER_VERBS[verb](rest)
    elif verb == "predict" and any(argument.split("=")[0] == "--input" for argument in rest):
        label_file(rest)
    elif verb == "ablate":
        ablate(rest, _evaluate)
    elif verb in VERBS[1:] and rest and not rest[0].startswith("-"):
        _evaluate(verb, rest[0], rest[1:])
    else:
        check_arguments(rest)
        with_halves(lambda: CLI(arguments))


def _evaluate(verb: str, path: str, options: Sequence[str]) -> None:
    """A verb of LightningCLI on a finished run."""
    run = RunDirectory.existing(path)
    run.read_config()
    check_arguments(options)
    CLI([verb, "--config", str(run.config), "--run_dir", path, *HERE, *options])


def _quiet_advice() -> None:
    """Leaves out advice that does not apply here, so that what is printed is worth reading."""
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*custom batch sampler `EvaluationBatches`.*",
        ".*isinstance.treespec, LeafSpec.* is deprecated.*",
        ".*callbacks used to create the checkpoint.*",
        # `ExactResume` does go on behind the last batch.
        ".*your dataloader is not resumable.*",
    ):
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
