"""`python -m peft_lightning` is the command `peft-lightning`."""

from peft_lightning.cli import main

if __name__ == "__main__":
    main()
