"""What `peft-lightning --help` says."""

import argparse

from jsonargparse import DefaultHelpFormatter

DESCRIPTION = """Parameter-efficient fine-tuning of Hugging Face models.

On a finished run directory RUN:
  peft-lightning test RUN                               evaluate its best checkpoint on the test split
  peft-lightning validate RUN                           the same on the validation split
  peft-lightning predict RUN                            label the test split
  peft-lightning predict RUN --input FILE --output FILE label the texts of a file
  peft-lightning ablate RUN                             evaluate it without each span of layers; draw the heatmap
  peft-lightning summary RUN [RUN ...]                  print metrics, parameters and costs, of several as a table
  peft-lightning glue-submission --output ZIP RUN ...   put predictions of GLUE's tasks together for its server

On data:
  peft-lightning check-data --data CLASS [--data.OPTION VALUE ...]
                                                        check every row; print sizes, labels and lengths

On a grid of runs:
  peft-lightning study FILE                             run what is missing, write table and figure

Exit status:
  0 done    1 bad input, or an error    2 bad options
  3 a loss, gradient or weight was not finite    4 out of memory
  130 SIGINT    143 SIGTERM    75 SIGUSR1, which also asks SLURM to requeue the job; the same command goes on
"""


class HelpFormatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description as they are written."""
