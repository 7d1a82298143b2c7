"""One run of a study, from its configuration to its test metrics, as a process: CONFIG SEED RUN_DIR."""

import sys

from peft_lightning.cli import main


def train_and_test(config: str, seed: str, directory: str) -> None:
    """What `fit` and `test` do; a run that is done already is only tested."""
    main(["fit", "--config", config, "--seed_everything", seed, "--run_dir", directory])
    main(["test", directory])


if __name__ == "__main__":
    train_and_test(*sys.argv[1:])
