"""One run of a study, from its configuration to its metrics, as a process: CONFIG SEED RUN_DIR [test]."""

import sys

from peft_lightning.cli import main


def carry_out(config: str, seed: str, directory: str, *then: str) -> None:
    """What `fit` does, and the verbs behind it; a run that is done already only does those."""
    main(["fit", "--config", config, "--seed_everything", seed, "--run_dir", directory])
    for verb in then:
        main([verb, directory])


if __name__ == "__main__":
    carry_out(*sys.argv[1:])
